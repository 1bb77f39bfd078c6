"""Distillation of language models on Hugging Face Transformers, with the losses of eakd_det.

B counts the sequences of a batch, L their tokens, N the tokens of answers in it, V the words.
"""

import importlib.util
import sys


def _hide_data_folder() -> None:
    """A folder ./datasets, as Detectron2 has it, can be imported; transformers would take it for
    the package of that name and stop at what it lacks."""
    spec = importlib.util.find_spec("datasets")
    if spec is not None and spec.origin is None:
        sys.modules["datasets"] = None


_hide_data_folder()

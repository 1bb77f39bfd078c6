"""Distillation of language models on Hugging Face Transformers, with the losses of eakd_det.

B is the number of sequences of a batch, L their length in tokens, N the number of answer tokens in
the batch, V the size of the vocabulary.
"""

import importlib.util
import sys


def _hide_data_folder() -> None:
    """Hide a folder ./datasets, as used by Detectron2, from imports.

    transformers would take it for the package of that name, and fail on its missing contents.
    """
    spec = importlib.util.find_spec("datasets")
    if spec is not None and spec.origin is None:
        sys.modules["datasets"] = None


_hide_data_folder()

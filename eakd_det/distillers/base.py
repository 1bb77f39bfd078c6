"""The interface of a distillation method."""

from typing import Any

from torch import Tensor

from .batch import DistillationBatch


class Distiller:
    """A distillation method: computes its losses on a batch.

    Attributes:
        defaults: options and their defaults, which become keys of the config.
        compares: "logits" or "features"; of classifiers also "views" or "paths".
        has_ea_form: whether the EA weight applies to it.
        has_adapter: whether modules train beside the student for it (see `AdapterDistiller`).
    """

    defaults: dict[str, Any]
    compares: str
    has_ea_form = True
    has_adapter = False

    def __call__(self, batch: DistillationBatch, **options: Any) -> dict[str, Tensor]:
        """Return the losses by the suffix of their name, "" if there is one loss.

        Args:
            options: values of `defaults`, and "adapter", the module, if the method has one.
        """
        raise NotImplementedError

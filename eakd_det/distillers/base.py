"""The interface of a distillation method."""

from typing import Any

from torch import Tensor, nn

from .batch import DistillationBatch


class Distiller:
    """A distillation method: computes its losses on a batch.

    A method may have an adapter: a module that trains beside the student and is no part of it.

    Attributes:
        defaults: options and their defaults, which become keys of the config.
        compares: "logits" or "features"; of R-CNNs also "boxes" (with the logits), "objectness" or
            "heads"; of classifiers also "views" or "paths".
        has_ea_form: whether the EA weight applies to it.
        has_adapter: whether it has an adapter.
    """

    defaults: dict[str, Any]
    compares: str
    has_ea_form = True
    has_adapter = False

    def __call__(self, batch: DistillationBatch, *args: Any, **options: Any) -> dict[str, Tensor]:
        """Return the losses by the suffix of their name, "" if there is one loss.

        Args:
            options: values of `defaults`, and "adapter", the module, if the method has one.
        """
        raise NotImplementedError

    def build_adapter(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Build the adapter, from what `DistillationObjective.build_adapters` is given."""
        raise NotImplementedError

    def changing_epochs(self, **options: Any) -> float:
        """Return the number of first epochs in which a step's losses depend on more than its batch.

        They do if they depend on the epoch, or on random numbers that are drawn for each step;
        infinity if they always do.
        """
        return 0

    def statistics(self, adapter: nn.Module) -> dict[str, float]:
        """Return the metrics of the adapter to log, by name."""
        return {}

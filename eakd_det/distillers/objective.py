"""The weighted, named losses of a run; detectors, classifiers and language models use it."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from eakd_det.losses import shared_softmax
from eakd_det.utils.errors import UserError

from .base import Distiller
from .batch import DistillationBatch, LogitPair
from .ea import BACKGROUND_WEIGHTS, EA_MODES, NO_EA, weigh_pair
from .entropy_statistics import LOG_PERIOD, entropy_statistics
from .label_agreement import LabelAgreement
from .settings import check_ea


class Method:
    """A distillation method with its settings in a run.

    Attributes:
        distiller: computes its losses.
        weight: factor of the losses.
        warmup: epochs over which that factor rises from 0.
        options: of the distiller.
        changing_epochs: number of first epochs in which the losses depend on more than the batch.
    """

    def __init__(self, distiller: Distiller, *, weight: float, warmup: float = 0.0, **options: Any):
        self.distiller, self.weight, self.warmup, self.options = distiller, weight, warmup, options
        self.changing_epochs = max(warmup, distiller.changing_epochs(**options))

    def scale(self, epoch: int) -> float:
        """Return the factor of the losses in an epoch, counted from 1."""
        return self.weight * min(epoch / self.warmup, 1.0) if self.warmup else self.weight


class DistillationObjective:
    """Computes the losses of the methods on a batch, weighted as DISTILL says.

    Attributes:
        methods: name -> method.
        is_weighted: whether samples get an EA weight.
        needs_mean: whether these depend on the mean over the batch.
        temperature, bound: of the entropies; `bound` None is their natural one.
        compares_logits: whether a method, or the EA weight, needs logits.
        agreement: compares the teacher's logits with the labels, for a log line.
    """

    def __init__(
        self,
        distillers: Mapping[str, Distiller],
        methods: Mapping[str, Mapping[str, Any]],
        ea: Mapping[str, Any] = NO_EA,
        *,
        samples: str = "samples",
        causes: str = "",
    ):
        """
        Args:
            distillers: the methods that exist.
            methods: name -> options of the distiller, "weight" and "warmup", as those of `Method`.
            ea: "enabled", "mode", "temperature", "bound" (0 is the natural one) and "background";
                missing ones are those of NO_EA.
            samples, causes: as those of `LabelAgreement`.

        Raises:
            UserError: a method has no EA form, and the EA weight is enabled; see `check_ea`.
        """
        self._ea = ea = {**NO_EA, **ea}
        check_ea(ea, methods)
        self.methods = {name: Method(distillers[name], **methods[name]) for name in methods}
        self.is_weighted, self._mode = ea["enabled"], EA_MODES[ea["mode"]]
        self.needs_mean = self.is_weighted and self._mode.by_mean is not None
        self.temperature, self.bound = ea["temperature"], ea["bound"] or None
        without = [n for n, method in self.methods.items() if not method.distiller.has_ea_form]
        if self.is_weighted and without:
            raise UserError(
                f"{without[0]} has no EA form: its weights are static. DISTILL.EA.ENABLED must be "
                "False."
            )
        on_features, on_objectness = self.methods_on("features"), self.methods_on("objectness")
        on_others = len(on_features) + len(on_objectness) < len(self.methods)
        self.compares_logits = on_others or bool(self.is_weighted and on_features)
        self.agreement = LabelAgreement(samples, causes, is_open=self.compares_logits)

    def log_settings(self) -> None:
        """Log the methods with their weights, and the EA weight, in one line."""
        if not self.methods:
            return
        weights = [
            f"{name} with WEIGHT {method.weight:g}"
            + (f" after {method.warmup:g} epochs of warm-up" if method.warmup else "")
            for name, method in self.methods.items()
        ]
        ea = "no EA weight"
        if self.is_weighted:
            ea = f"EA weight {self._ea['mode']}, temperature {self.temperature:g}"
            if self._ea["background"] != NO_EA["background"]:
                ea += f", background {self._ea['background']}"
        logging.getLogger(__name__).info(f"Methods: {', '.join(weights)}; {ea}")

    def methods_on(self, compared: str) -> list[str]:
        """Return the names of the methods that compare "logits", "features", ..."""
        return [n for n, method in self.methods.items() if method.distiller.compares == compared]

    def build_adapters(self, *arguments: Any, **more: tuple) -> nn.ModuleDict:
        """Build the adapter of each method that has one, by the name of the method.

        They draw from a fork of the random state, so that the student's initialisation is the same
        with and without them.

        Args:
            arguments: of the methods' `build_adapter`.
            more: further arguments, by what a method compares.
        """
        with torch.random.fork_rng(devices=[]):
            return nn.ModuleDict(
                {
                    name: distiller.build_adapter(*arguments, *more.get(distiller.compares, ()))
                    for name, distiller in ((n, m.distiller) for n, m in self.methods.items())
                    if distiller.has_adapter
                }
            )

    def __call__(
        self, batch: DistillationBatch, adapters: Mapping[str, nn.Module]
    ) -> dict[str, Tensor]:
        """Weigh the samples, compute the losses, and log statistics every LOG_PERIOD iterations.

        Needs Detectron2's event storage.

        Args:
            adapters: those of `build_adapters`.

        Returns:
            "loss_<method><suffix>" -> scalar.
        """
        is_logged = self._is_logged()
        if self.agreement.is_open:
            self._compare_with_labels(batch.logit_pairs[0], is_logged)
        with shared_softmax():
            if batch.logit_pairs and (self.is_weighted or is_logged):
                entropies = self.weigh(batch.weighted_pairs)
                if is_logged:
                    self._log(batch.weighted_pairs, entropies, adapters)
            if batch.objectness is not None and self.is_weighted:
                self.weigh([batch.objectness])
            return self.losses(batch, adapters)

    def is_static(self, epoch: int) -> bool:
        """Return True if this iteration's losses are computed from tensors alone.

        Then nothing is logged or counted, and no factor depends on the epoch, counted from 1. Needs
        Detectron2's event storage.
        """
        if self._is_logged() or self.agreement.is_open:
            return False
        return all(epoch >= method.changing_epochs for method in self.methods.values())

    def weigh(self, pairs: list[LogitPair]) -> list[tuple[Tensor, Tensor]]:
        """Set the EA weights of the samples, if these are enabled.

        Returns:
            The (R,) entropies of student and teacher in each pair.
        """
        entropies = [pair.entropies(self.temperature) for pair in pairs]
        if self.is_weighted:
            for pair, of_both in zip(pairs, entropies, strict=True):
                weigh_pair(
                    pair,
                    *of_both,
                    mode=self._mode,
                    bound=self.bound,
                    background_weight=BACKGROUND_WEIGHTS[self._ea["background"]],
                )
        return entropies

    def losses(
        self, batch: DistillationBatch, adapters: Mapping[str, nn.Module]
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch whose samples have been weighed.

        Returns:
            "loss_<method><suffix>" -> scalar, or (R,) of a pair without a normalizer.
        """
        losses = {}
        for name, method in self.methods.items():
            scale, options = method.scale(batch.epoch), method.options
            if method.distiller.has_adapter:
                options = {**options, "adapter": adapters[name]}
            for suffix, loss in method.distiller(batch, **options).items():
                losses[f"loss_{name.lower()}{suffix}"] = loss if scale == 1 else scale * loss
        return losses

    def _is_logged(self) -> bool:
        return (get_event_storage().iter + 1) % LOG_PERIOD == 0

    def _compare_with_labels(self, pair: LogitPair, is_logged: bool) -> None:
        self.agreement.count(pair.teacher_logits[:, : pair.num_classes], pair.labels)
        if is_logged and self.agreement.is_open:
            self.agreement.report()

    def _log(
        self,
        pairs: list[LogitPair],
        entropies: list[tuple[Tensor, Tensor]],
        adapters: Mapping[str, nn.Module],
    ) -> None:
        statistics = entropy_statistics(pairs, entropies, bound=self.bound)
        for name, adapter in adapters.items():
            statistics.update(self.methods[name].distiller.statistics(adapter))
        get_event_storage().put_scalars(**statistics, smoothing_hint=False)

"""Distillation methods of language models, and the loss of each token.

N counts tokens of the answers, V the vocabulary.
"""

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from eakd_det.distillers import (
    DistillationBatch,
    DistillationObjective,
    LogitDistiller,
    LogitPair,
    method_settings,
)
from eakd_det.losses import (
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
)
from eakd_det.losses.reduction import at_least_float32

# DISTILL.METHODS -> method.
DISTILLERS = {
    name: LogitDistiller(divergence, can_standardize=False)
    for name, divergence in {
        "KD": forward_kl,
        "RKL": reverse_kl,
        "SKLD": skewed_forward_kl,
        "SRKLD": skewed_reverse_kl,
        "SYMMETRIC": symmetric_kl,
        "JSD": jensen_shannon,
    }.items()
}


class TokenObjective:
    """The loss of each token: the cross-entropy and the methods, weighted as DISTILL says.

    Attributes:
        step_mean: mean of w_EA over the tokens of a step, a scalar, for a mode that needs it; None
            is the mean over the tokens of each call.
        sums: sums over the tokens of all calls until they are cleared, detached scalars: of each
            loss, as "loss_kd", and of the EA weight, "weight", before a division by its mean;
            "tokens", their number.
    """

    def __init__(self, node: CfgNode):
        """
        Args:
            node: DISTILL of a config, with a method.

        Raises:
            UserError: a method or the EA mode is unknown.
        """
        self.distillation = DistillationObjective(DISTILLERS, **method_settings(node, DISTILLERS))
        self.ce_weight = node.CE_WEIGHT
        self.step_mean: Tensor | None = None
        self.sums: dict[str, Tensor] = {}

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of each token, (N,), and add to `sums`; see `per_token`."""
        loss, values = self.per_token(student_logits, teacher_logits, labels)
        self.add({name: x.detach().sum() for name, x in values.items()})
        return loss

    def per_token(
        self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of each token, without side effects: torch can compile it.

        Args:
            student_logits, teacher_logits: (N, V).
            labels: (N,) the tokens of the answers, none of them ignored.

        Returns:
            The losses, (N,), at least float32; and the values of each token, (N,), whose sums are
            those of `sums`.
        """
        logits = student_logits, teacher_logits
        pair = LogitPair(*logits, labels, normalizer=None, mean_weight=self.step_mean)
        if self.distillation.is_weighted:
            self.distillation.weigh([pair])
        terms = self.distillation.losses(DistillationBatch([pair]), {})
        if self.ce_weight:
            terms["loss_ce"] = self.ce_weight * _cross_entropy(student_logits, labels)
        loss = sum(terms.values())
        values = {**terms, "tokens": torch.ones_like(loss)}
        weight = pair.sample_weight
        if pair.mean_weight is not None:
            weight = pair.mean_weight.expand(len(labels))
        if weight is not None:
            values["weight"] = weight
        return loss, values

    def add(self, sums: dict[str, Tensor]) -> None:
        """Add sums over tokens to those of the calls before."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (N, V) logits with (N,) labels, (N,)."""
    logits = at_least_float32(logits)
    if not torch.compiler.is_compiling():
        return F.cross_entropy(logits, labels, reduction="none")
    # The gradient of an indexing would be a scatter into a float32 matrix of the logits' size.
    is_label = torch.arange(logits.shape[1], device=labels.device) == labels.unsqueeze(1)
    return -F.log_softmax(logits, dim=1).where(is_label, 0).sum(dim=1)

"""From what student and teacher say of tokens to the loss of each: the methods of language models.

N counts tokens of answers, V words. The EA weight of a token is made once, for all methods.
"""

from collections.abc import Callable

from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from eakd_det.distillers import EA_MODES
from eakd_det.losses import (
    entropy,
    forward_kl,
    jensen_shannon,
    reverse_kl,
    skewed_forward_kl,
    skewed_reverse_kl,
    symmetric_kl,
)
from eakd_det.losses.reduction import at_least_float32

# DISTILL.METHODS -> divergence.
DISTILLERS: dict[str, Callable[..., Tensor]] = {
    "KD": forward_kl,
    "RKL": reverse_kl,
    "SKLD": skewed_forward_kl,
    "SRKLD": skewed_reverse_kl,
    "SYMMETRIC": symmetric_kl,
    "JSD": jensen_shannon,
}


class TokenObjective:
    """The loss of each token: the cross-entropy and the methods, weighted as DISTILL says."""

    def __init__(self, node: CfgNode):
        """
        Args:
            node: DISTILL of a config.
        """
        self.ce_weight = node.CE_WEIGHT
        self.ea = node.EA if node.EA.ENABLED else None
        self.methods = []
        for name in node.METHODS:
            options = {key.lower(): value for key, value in node[name].items()}
            self.methods.append((DISTILLERS[name], options.pop("weight"), options))

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each token.

        Args:
            student_logits, teacher_logits: (N, V).
            labels: (N,) the words of the answers, none of them ignored.

        Returns:
            (N,), at least float32.
        """
        weight = None if self.ea is None else self._ea_weight(student_logits, teacher_logits)
        # Also at a weight of 0 the sum starts from it: a batch without tokens must have a graph.
        loss = self.ce_weight * F.cross_entropy(
            at_least_float32(student_logits), labels, reduction="none"
        )
        for divergence, factor, options in self.methods:
            logits = student_logits, teacher_logits
            loss = loss + factor * divergence(
                *logits, labels, weight=weight, reduction="none", **options
            )
        return loss

    def _ea_weight(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """(N,) EA weight, detached."""
        temperature = self.ea.TEMPERATURE
        student_entropy = entropy(student_logits.detach(), temperature=temperature)
        teacher_entropy = entropy(teacher_logits.detach(), temperature=temperature)
        num_words, bound = teacher_logits.shape[-1], self.ea.BOUND or None
        return EA_MODES[self.ea.MODE](student_entropy, teacher_entropy, num_words, bound)

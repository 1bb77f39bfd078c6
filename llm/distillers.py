"""From what student and teacher say of tokens to the loss of each: the methods of language models.

N counts tokens of answers, V words. The EA weight of a token is made once, for all methods.
"""

from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from eakd_det.distillers.methods import EA_MODES
from eakd_det.distillers.settings import method_settings
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
    """The loss of each token: the cross-entropy and the methods, weighted as DISTILL says.

    Attributes:
        is_matched: whether all tokens of a step share one EA weight, their mean.
        step_weight: that weight, a scalar; None is the mean of the tokens of each call.
        sums: sums over the tokens of all calls until they are cleared, detached scalars: of each
            loss, as "loss_kd", and of the EA weight, "weight"; "tokens", their number.
    """

    def __init__(self, node: CfgNode):
        """
        Args:
            node: DISTILL of a config, with a method.

        Raises:
            UserError: there is no such method or EA mode.
        """
        settings = method_settings(node, DISTILLERS)
        self.ce_weight, self.ea = node.CE_WEIGHT, settings["ea"]
        self.methods = {
            name: (options.pop("weight"), options) for name, options in settings["methods"].items()
        }
        self.is_matched = self.ea["enabled"] and self.ea["mode"] == "matched"
        self.step_weight: Tensor | None = None
        self.sums: dict[str, Tensor] = {}

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each token.

        Args:
            student_logits, teacher_logits: (N, V).
            labels: (N,) the words of the answers, none of them ignored.

        Returns:
            (N,), at least float32.
        """
        is_weighted = self.ea["enabled"]
        weight = self._ea_weight(student_logits, teacher_logits) if is_weighted else None
        logits = student_logits, teacher_logits
        terms = {
            f"loss_{name.lower()}": factor
            * DISTILLERS[name](*logits, labels, weight=weight, reduction="none", **options)
            for name, (factor, options) in self.methods.items()
        }
        if self.ce_weight:
            words = at_least_float32(student_logits)
            terms["loss_ce"] = self.ce_weight * F.cross_entropy(words, labels, reduction="none")
        loss = sum(terms.values())
        counted = {**terms, "tokens": torch.ones_like(loss)}
        if weight is not None:
            counted["weight"] = weight
        for name, values in counted.items():
            self.sums[name] = self.sums.get(name, 0) + values.detach().sum()
        return loss

    def _ea_weight(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """(N,) EA weight, detached."""
        if self.step_weight is not None:
            return self.step_weight.expand(len(student_logits))
        temperature = self.ea["temperature"]
        student_entropy = entropy(student_logits.detach(), temperature=temperature)
        teacher_entropy = entropy(teacher_logits.detach(), temperature=temperature)
        weigh, num_words = EA_MODES[self.ea["mode"]], teacher_logits.shape[-1]
        return weigh(student_entropy, teacher_entropy, num_words, self.ea["bound"] or None)

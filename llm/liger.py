"""Chunked losses by Liger-Kernel, for the methods that it implements.

Its chunked distillation loss (`liger_kernel.chunked_loss`, compiled for the GPU) is the divergence
of GKD (arXiv 2306.13649) plus the cross-entropy: beta 0 is the forward KL, beta 1 the reverse KL.
It has neither token weights nor skewed divergences, and computes softmaxes in the precision of the
logits: float32 for weights in float32, also under autocast.
"""

import importlib.util
import logging
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from torch import Tensor

from eakd_det.losses import LanguageHead
from eakd_det.losses.divergence import IGNORED, share_of

logger = logging.getLogger(__name__)

# (student, teacher, labels (B, L), tokens in the step or None) -> scalar; heads as in chunked_loss
FusedLoss = Callable[[LanguageHead, LanguageHead, Tensor, Tensor | int | None], Tensor]

# Method -> function of its options that returns Liger-Kernel's beta.
BETAS: dict[str, Callable[[CfgNode], float]] = {
    "KD": lambda options: 0.0,
    "RKL": lambda options: 1.0,
    "JSD": lambda options: options.BETA,
}


def is_available(device: torch.device) -> bool:
    """Return whether Liger-Kernel is installed and the device a GPU, which it requires."""
    return device.type == "cuda" and importlib.util.find_spec("liger_kernel") is not None


def liger_loss(node: CfgNode, dtypes: set[torch.dtype]) -> FusedLoss | None:
    """Return Liger-Kernel's loss for a DISTILL node, or None if it does not implement that.

    Args:
        node: DISTILL of a config, with CHUNK_SIZE above 0.
        dtypes: dtypes of the weights of both output heads.
    """
    is_supported = len(node.METHODS) == 1 and node.METHODS[0] in BETAS
    if not is_supported or node.EA.ENABLED or dtypes != {torch.float32}:
        return None
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss  # optional

    name = node.METHODS[0]
    mean_over_tokens = LigerFusedLinearJSDLoss(
        weight_hard_loss=node.CE_WEIGHT,
        weight_soft_loss=node[name].WEIGHT,
        beta=BETAS[name](node[name]),
        ignore_index=IGNORED,
        chunk_size=node.CHUNK_SIZE,
    )
    logger.info("Liger-Kernel computes the loss of %s.", name)

    def loss(
        student: LanguageHead,
        teacher: LanguageHead,
        labels: Tensor,
        num_tokens: Tensor | int | None,
    ) -> Tensor:
        rows = (labels != IGNORED).flatten().nonzero().squeeze(1)
        chosen = labels.flatten().index_select(0, rows)
        states = [x.states.flatten(0, -2).index_select(0, rows) for x in (student, teacher)]
        if not len(chosen):  # the mean over no token is NaN on a GPU, as are its gradients
            return _zero_of(student._replace(states=states[0]))
        mean = mean_over_tokens(
            states[0],
            student.weight,
            states[1],
            teacher.weight,
            chosen,
            student.bias,
            teacher.bias,
        )
        return mean if num_tokens is None else mean * share_of(len(chosen), num_tokens)

    return loss


def _zero_of(head: LanguageHead) -> Tensor:
    """Return a zero in the graph whose gradients are 0, whatever the values are.

    Args:
        head: a head with the states of no token, (0, D).
    """
    weights = [x[:0] for x in (head.weight, head.bias) if x is not None]
    return sum((x.sum() for x in weights), head.states.sum())

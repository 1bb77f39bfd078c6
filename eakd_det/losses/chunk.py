"""Loss of one chunk of tokens and its slope in the student's logits, eager or compiled.

n counts the tokens of a chunk, V is the size of the vocabulary, D the hidden size.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# (student_logits (n, V), teacher_logits (n, V), labels (n,)) -> (n,) losses, or these and other
# values of the tokens by name, each (n,)
TokenLoss = Callable[[Tensor, Tensor, Tensor], Tensor | tuple[Tensor, dict[str, Tensor]]]
Sums = dict[str, Tensor]  # detached sums over the tokens of those values

# Options of inductor: keep softmaxes in registers, so that a GPU computes a chunk in one kernel
# that holds no (n, V) matrix of its own. By default it stores gradients in float32 in between, and
# splits the rows among several kernels where there are few.
OPTIONS: dict[str, Any] = {
    "realize_reads_threshold": 1000,
    "realize_opcount_threshold": 10000,
    "realize_acc_reads_threshold": 1000,
    "split_reductions": False,
}
ALIGNMENT = 64  # numbers; rows of logits that begin at multiples of it are fast in matrix products
MOST_LOSSES = 64  # compiled in one process


class LanguageHead(NamedTuple):
    """Hidden states and output head of a language model; its logits are states @ weight.T + bias.

    Attributes:
        states: (B, L, D) or (N, D) hidden states that enter the output head.
        weight: (V, D) weight of the output head.
        bias: (V,) bias of the output head, or None.
    """

    states: Tensor
    weight: Tensor
    bias: Tensor | None = None


class ChunkLoss(NamedTuple):
    """Loss of a chunk.

    Attributes:
        total: sum of the losses of its tokens, detached.
        sums: of the other values that the token loss returned.
        slope: (n, V) gradient of `total` in the student's logits; None without gradients.
    """

    total: Tensor
    sums: Sums
    slope: Tensor | None


def eager_chunk(
    token_loss: TokenLoss,
    student: LanguageHead,
    teacher: LanguageHead,
    labels: Tensor,
    *,
    has_slope: bool = True,
) -> ChunkLoss:
    """Compute the loss of a chunk by autograd; the states are (n, D)."""
    logits, teacher_logits = F.linear(*student), F.linear(*teacher)
    with torch.set_grad_enabled(has_slope):
        logits.requires_grad_(has_slope)
        total, sums = _sums(token_loss, logits, teacher_logits, labels)
    slope = torch.autograd.grad(total, logits)[0] if has_slope else None
    return ChunkLoss(total.detach(), sums, slope)


class CompiledChunk:
    """`eager_chunk` compiled by torch, once for all numbers of tokens.

    The logits of both networks are kept in two matrices that all chunks share, and the slope
    replaces the student's logits in theirs: it must be used before the next chunk.
    """

    def __init__(self, size: int):
        """
        Args:
            size: largest number of tokens of a chunk.
        """
        self.size = size
        self.matrices: dict[str, Tensor] = {}

    def __call__(
        self, token_loss: TokenLoss, student: LanguageHead, teacher: LanguageHead, labels: Tensor
    ) -> ChunkLoss:
        logits = self._logits("student", student)
        teacher_logits = self._logits("teacher", teacher)
        for tensor in (logits, teacher_logits, labels):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        with torch._dynamo.config.patch(cache_size_limit=MOST_LOSSES):
            total, sums = _compiled()(token_loss, logits, teacher_logits, labels)
        return ChunkLoss(total, sums, logits)

    def _logits(self, name: str, head: LanguageHead) -> Tensor:
        states, weight, bias = head
        if name not in self.matrices:
            width = -(-len(weight) // ALIGNMENT) * ALIGNMENT
            self.matrices[name] = states.new_empty(self.size, width)
        logits = self.matrices[name][: len(states), : len(weight)]
        if bias is None:
            return torch.mm(states, weight.t(), out=logits)
        return torch.addmm(bias, states, weight.t(), out=logits)


@cache
def _compiled() -> Callable[..., tuple[Tensor, Sums]]:
    return torch.compile(_replace_by_slope, fullgraph=True, dynamic=False, options=OPTIONS)


def _replace_by_slope(
    token_loss: TokenLoss, logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> tuple[Tensor, Sums]:
    """Return the total and the sums of a chunk, and replace the student's logits by its slope."""
    slope_of = torch.func.grad_and_value(_sums, argnums=1, has_aux=True)
    slope, (total, sums) = slope_of(token_loss, logits, teacher_logits, labels)
    logits.copy_(slope)
    return total, sums


def _sums(
    token_loss: TokenLoss, logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> tuple[Tensor, Sums]:
    """Return the sum of the losses, and those of the other values, over the tokens."""
    result = token_loss(logits, teacher_logits, labels)
    losses, values = result if isinstance(result, tuple) else (result, {})
    return losses.sum(), {name: x.detach().sum() for name, x in values.items()}

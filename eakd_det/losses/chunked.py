"""Loss on the logits of two language models, computed in chunks of tokens to save memory.

N counts tokens, V is the size of the vocabulary, D the hidden size. A loss on whole logits holds
several (N, V) matrices at once. Here the logits of `chunk_size` tokens are computed from the hidden
states and both output heads, and their gradients are taken before the next chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .divergence import IGNORED, share_of

# (student_logits (N, V), teacher_logits (N, V), labels (N,)) -> (N,) losses
TokenLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


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


def chunked_loss(
    token_loss: TokenLoss,
    student: LanguageHead,
    teacher: LanguageHead,
    labels: Tensor,
    *,
    chunk_size: int = 256,
    num_tokens: float | Tensor | None = None,
) -> Tensor:
    """Mean of `token_loss` over the tokens that count, with one chunk of logits at a time.

    The result equals that of the loss on whole logits. For example, EA-KD with SKLD is

        def token_loss(student_logits, teacher_logits, labels):
            weight = entropy_weight(student_logits, teacher_logits)
            return skewed_forward_kl(
                student_logits, teacher_logits, labels, weight=weight, reduction="none"
            )

    Args:
        token_loss: loss of each token of a chunk, all of which count; differentiable with respect
            to the student's logits. A token's loss must not depend on the other tokens.
        student, teacher: hidden states and heads. The teacher's side gets no gradient. A head may
            be shared with other layers (tied embeddings).
        labels: (B, L); a token counts unless its label is -100.
        chunk_size: number of tokens whose logits are held at a time.
        num_tokens: divisor of the sum over tokens, as in `eakd_det.losses.divergence`.

    Returns:
        A scalar, at least float32. Without any token it is a zero joined to the graph.

    Raises:
        ValueError: `chunk_size` is below 1, or the shapes do not fit.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be 1 or more, got {chunk_size}")
    _check_shapes(student, teacher, labels)
    counts = labels != IGNORED
    chosen = labels[counts]
    # The teacher is passed as a constant: only the student's tensors get gradients.
    bias = None if teacher.bias is None else teacher.bias.detach()
    frozen = LanguageHead(teacher.states.detach()[counts], teacher.weight.detach(), bias)
    mean = _ChunkedMean.apply(
        student.states[counts], student.weight, student.bias, frozen, chosen, token_loss, chunk_size
    )
    return mean if num_tokens is None else mean * share_of(len(chosen), num_tokens)


class _ChunkedMean(torch.autograd.Function):
    """Mean over tokens; value and gradients are computed together, chunk by chunk."""

    @staticmethod
    def forward(ctx, states, weight, bias, teacher, labels, token_loss, chunk_size):
        wanted = ctx.needs_input_grad[:3]
        inputs = (states, weight, bias)
        total = torch.zeros((), dtype=_working_dtype(states.dtype), device=states.device)
        states, weight, bias = _as_autocast(*inputs)
        teacher = LanguageHead(*_as_autocast(*teacher))
        # Sums over many tokens are kept in the working precision, whatever the parameters' dtype.
        gradients = [
            torch.zeros_like(x, dtype=_working_dtype(x.dtype)) if is_wanted else None
            for x, is_wanted in zip(inputs, wanted, strict=True)
        ]
        for start in range(0, len(labels), chunk_size):
            part = slice(start, start + chunk_size)
            logits = F.linear(states[part], weight, bias)
            teacher_logits = F.linear(teacher.states[part], teacher.weight, teacher.bias)
            with torch.set_grad_enabled(any(wanted)):
                logits.requires_grad_(any(wanted))
                loss = token_loss(logits, teacher_logits, labels[part]).sum()
            total += loss.detach()
            if any(wanted):
                (slope,) = torch.autograd.grad(loss, logits)
                del logits, teacher_logits, loss  # before the products below need room
                _add_chunk(gradients, slope, states[part], weight, part)
        number = max(len(labels), 1)
        ctx.save_for_backward(*(None if g is None else g.div_(number) for g in gradients))
        ctx.dtypes = [None if x is None else x.dtype for x in inputs]
        return total / number

    @staticmethod
    @once_differentiable
    def backward(ctx, factor):
        gradients = (
            None if g is None else (g * factor).to(dtype)
            for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*gradients, None, None, None, None)


def _add_chunk(
    gradients: list[Tensor | None], slope: Tensor, states: Tensor, weight: Tensor, part: slice
) -> None:
    """Add the gradients of a chunk, from `slope`, (n, V), that of its loss in its logits."""
    of_states, of_weight, of_bias = gradients
    if of_states is not None:
        of_states[part] = slope @ weight.to(slope.dtype)
    if of_weight is not None:
        if of_weight.dtype == slope.dtype == states.dtype:
            of_weight.addmm_(slope.t(), states)  # needs no second (V, D) matrix
        else:
            of_weight += slope.t() @ states.to(slope.dtype)
    if of_bias is not None:
        of_bias += slope.sum(dim=0, dtype=of_bias.dtype)


def _as_autocast(*tensors: Tensor | None) -> list[Any]:
    """Cast tensors as autocast would, once for all chunks.

    Autocast caches its copy of a parameter for the next use. Older versions of torch also cache a
    copy that was made without gradients, and the parameter then loses the gradient of that use.
    """
    device = next(x.device.type for x in tensors if x is not None)
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [x if x is None or x.dtype == torch.float64 else x.to(dtype) for x in tensors]


def _working_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _check_shapes(student: LanguageHead, teacher: LanguageHead, labels: Tensor) -> None:
    if student.weight.shape[0] != teacher.weight.shape[0]:
        raise ValueError(
            f"the student's vocabulary has {student.weight.shape[0]} tokens and the teacher's "
            f"{teacher.weight.shape[0]}: cut the larger head to the tokens that both have"
        )
    for name, head in [("student", student), ("teacher", teacher)]:
        expected = (*labels.shape, head.weight.shape[1])
        if head.states.shape != expected:
            raise ValueError(
                f"the {name}'s states must have shape {expected} to match the labels and the "
                f"head's weight, got {tuple(head.states.shape)}"
            )

"""A loss on the logits of two language models that are never there as a whole.

N counts tokens, V the words of the vocabulary, D the width of a network. The plain way makes
several (N, V) matrices at once; here the logits of `chunk_size` tokens at a time are made from the
hidden states and both output heads, and a chunk's gradients are taken before the next.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .divergence import IGNORED, share_of

# (student_logits (N, V), teacher_logits (N, V), labels (N,)) -> (N,) losses
TokenLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


class LanguageHead(NamedTuple):
    """What makes a network's logits, states @ weight.T + bias.

    Attributes:
        states: (B, L, D) hidden states, as they enter the output head; (N, D) will do.
        weight: (V, D) of the output head.
        bias: (V,) or None.
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
    """Mean of `token_loss` over the tokens that count, of one chunk of logits at a time.

    It equals the plain form on whole logits. EA-KD with SKLD, say, is

        def token_loss(student_logits, teacher_logits, labels):
            weight = entropy_weight(student_logits, teacher_logits)
            return skewed_forward_kl(
                student_logits, teacher_logits, labels, weight=weight, reduction="none"
            )

    Args:
        token_loss: the loss of each of a chunk's tokens, all of which count; differentiable with
            respect to the student's logits. A token's value must not depend on the others.
        student, teacher: the teacher's side gets no gradient. A head that is shared with other
            layers (tied embeddings) will do.
        labels: (B, L); a token counts unless its label is -100.
        chunk_size: tokens whose logits are there at a time.
        num_tokens: as that of the divergences.

    Returns:
        A scalar, at least float32; no token gives a zero joined to the graph.

    Raises:
        ValueError: `chunk_size` is below 1, or the shapes do not fit.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be 1 or more, got {chunk_size}")
    _check_shapes(student, teacher, labels)
    counts = labels != IGNORED
    chosen = labels[counts]
    # The teacher goes along as a constant: of the arguments only the student's get gradients.
    frozen = LanguageHead(*(None if x is None else x.detach() for x in teacher))
    frozen = frozen._replace(states=frozen.states[counts])
    mean = _ChunkedMean.apply(
        student.states[counts], student.weight, student.bias, frozen, chosen, token_loss, chunk_size
    )
    return mean if num_tokens is None else mean * share_of(len(chosen), num_tokens)


class _ChunkedMean(torch.autograd.Function):
    """Mean over tokens; the gradients are taken with the value, chunk by chunk."""

    @staticmethod
    def forward(ctx, states, weight, bias, teacher, labels, token_loss, chunk_size):
        wanted = ctx.needs_input_grad[:3]
        inputs = (states, weight, bias)
        total = torch.zeros((), dtype=_working_dtype(states.dtype), device=states.device)
        states, weight, bias = _as_autocast(*inputs)
        teacher = LanguageHead(*_as_autocast(*teacher))
        # Sums over many tokens are kept in the working precision whatever the parameters have.
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
    """Add what a chunk gives, from `slope`, (n, V): the gradient of its sum on its logits."""
    of_states, of_weight, of_bias = gradients
    if of_states is not None:
        of_states[part] = slope @ weight.to(slope.dtype)
    if of_weight is not None:
        if of_weight.dtype == slope.dtype == states.dtype:
            of_weight.addmm_(slope.t(), states)  # without a second (V, D)
        else:
            of_weight += slope.t() @ states.to(slope.dtype)
    if of_bias is not None:
        of_bias += slope.sum(dim=0, dtype=of_bias.dtype)


def _as_autocast(*tensors: Tensor | None) -> list[Tensor | None]:
    """Cast what autocast would cast, once for all chunks.

    Autocast keeps its copy of a parameter for the parameter's next use, older versions of torch
    also one that was made without gradients: the parameter then lost the gradient of that use.
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
            f"the student's head has {student.weight.shape[0]} words and the teacher's "
            f"{teacher.weight.shape[0]}: cut the wider one to the words that both have"
        )
    for name, head in [("student", student), ("teacher", teacher)]:
        expected = (*labels.shape, head.weight.shape[1])
        if head.states.shape != expected:
            raise ValueError(
                f"the {name}'s states must have shape {expected}, as the labels and the head's "
                f"weight say, got {tuple(head.states.shape)}"
            )

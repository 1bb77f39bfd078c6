"""Loss on the logits of two language models, computed in chunks of tokens to save memory.

N counts tokens, V is the size of the vocabulary, D the hidden size. A loss on whole logits holds
several (N, V) matrices at once. Here the logits of `chunk_size` tokens are computed from the hidden
states and both output heads, and their gradients are taken before the next chunk.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chunk import CompiledChunk, LanguageHead, Sums, TokenLoss, eager_chunk
from .divergence import IGNORED, share_of

# On a GPU torch.addmm adds a product of halves to a float32 matrix.
ADDS_HALVES = torch.__version__ >= "2.11"


def chunked_loss(
    token_loss: TokenLoss,
    student: LanguageHead,
    teacher: LanguageHead,
    labels: Tensor,
    *,
    chunk_size: int = 256,
    num_tokens: float | Tensor | None = None,
    compiled: bool = False,
    collect: Callable[[Sums], None] | None = None,
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
            to the student's logits. A token's loss must not depend on the other tokens. It may
            return other values of the tokens, too: (losses, name -> (N,)).
        student, teacher: hidden states and heads. The teacher's side gets no gradient. A head may
            be shared with other layers (tied embeddings).
        labels: (B, L); a token counts unless its label is -100.
        chunk_size: number of tokens whose logits are held at a time.
        num_tokens: divisor of the sum over tokens, as in `eakd_det.losses.divergence`.
        compiled: compile `token_loss` with its gradient by torch.compile, once for a loss, a dtype
            and a vocabulary; meant for a GPU, which then computes each chunk in one kernel beside
            the matrix products. `token_loss` must be free of side effects and of operations whose
            shapes depend on values. The chunks of a forward pass without gradients, and those of
            one token, are not compiled.
        collect: called for each chunk with the sums over its tokens of the other values.

    Returns:
        A scalar, at least float32. Without any token it is a zero joined to the graph.

    Raises:
        ValueError: `chunk_size` is below 1, or the shapes do not fit.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be 1 or more, got {chunk_size}")
    _check_shapes(student, teacher, labels)
    # The number of tokens is the only value that a GPU is waited for.
    rows = (labels != IGNORED).flatten().nonzero().squeeze(1)
    chosen = labels.flatten().index_select(0, rows)
    # The teacher is passed as a constant: only the student's tensors get gradients.
    bias = None if teacher.bias is None else teacher.bias.detach()
    states = [head.states.flatten(0, -2) for head in (student, teacher)]
    frozen = LanguageHead(states[1].detach(), teacher.weight.detach(), bias)
    options = token_loss, chunk_size, compiled, collect
    mean = _ChunkedMean.apply(
        states[0], student.weight, student.bias, frozen, chosen, rows, options
    )
    return mean if num_tokens is None else mean * share_of(len(chosen), num_tokens)


class _ChunkedMean(torch.autograd.Function):
    """Mean over tokens; value and gradients are computed together, chunk by chunk."""

    @staticmethod
    def forward(ctx, states, weight, bias, teacher, labels, rows, options):
        token_loss, chunk_size, compiled, collect = options
        wanted, inputs = ctx.needs_input_grad[:3], (states, weight, bias)
        total = torch.zeros((), dtype=_working_dtype(states.dtype), device=states.device)
        gradients = _zeros(inputs, wanted, len(rows))
        # The heads are cast once for all chunks.
        heads = [_as_autocast(*head[1:]) for head in (LanguageHead(*inputs), teacher)]
        compiled_chunk = CompiledChunk(min(chunk_size, len(rows)))
        for start in range(0, len(rows), chunk_size):
            part = slice(start, start + chunk_size)
            student_chunk, teacher_chunk = (
                LanguageHead(*_as_autocast(x.index_select(0, rows[part])), *head)
                for x, head in zip((states, teacher.states), heads, strict=True)
            )
            chunk = student_chunk, teacher_chunk, labels[part]
            # torch compiles a size of 1 for itself.
            if compiled and any(wanted) and len(labels[part]) > 1:
                loss = compiled_chunk(token_loss, *chunk)
            else:
                loss = eager_chunk(token_loss, *chunk, has_slope=any(wanted))
            total += loss.total
            if collect is not None:
                collect(loss.sums)
            if loss.slope is not None:
                _add_chunk(gradients, loss.slope, student_chunk, part)
            del loss  # before the next chunk needs room
        number = max(len(rows), 1)
        ctx.save_for_backward(rows, *(None if g is None else g.div_(number) for g in gradients))
        ctx.shape, ctx.dtypes = states.shape, [None if x is None else x.dtype for x in inputs]
        return total / number

    @staticmethod
    @once_differentiable
    def backward(ctx, factor):
        rows, *saved = ctx.saved_tensors
        of_states, of_weight, of_bias = (
            None if g is None else _scaled(g, factor, dtype)
            for g, dtype in zip(saved, ctx.dtypes, strict=True)
        )
        if of_states is not None:
            of_states = of_states.new_zeros(ctx.shape).index_copy_(0, rows, of_states)
        return of_states, of_weight, of_bias, None, None, None, None


def _zeros(
    inputs: tuple[Tensor | None, ...], wanted: tuple[bool, ...], num_tokens: int
) -> list[Tensor | None]:
    """Return zeros for the gradients in states (num_tokens, D), weight and bias.

    Sums over many tokens are kept in the working precision, whatever the parameters' dtype.
    """
    return [
        x.new_zeros(
            (num_tokens if x is inputs[0] else len(x), *x.shape[1:]), dtype=_working_dtype(x.dtype)
        )
        if x is not None and is_wanted
        else None
        for x, is_wanted in zip(inputs, wanted, strict=True)
    ]


def _add_chunk(
    gradients: list[Tensor | None], slope: Tensor, head: LanguageHead, part: slice
) -> None:
    """Add the gradients of a chunk, from `slope`, (n, V), that of its loss in its logits."""
    of_states, of_weight, of_bias = gradients
    states, weight = head.states, head.weight
    if of_states is not None:
        of_states[part] = slope @ weight.to(slope.dtype)
    if of_weight is not None:
        if of_weight.dtype == slope.dtype == states.dtype:
            of_weight.addmm_(slope.t(), states)  # needs no second (V, D) matrix
        elif ADDS_HALVES and slope.is_cuda:
            options: dict[str, Any] = {"out_dtype": of_weight.dtype, "out": of_weight}
            torch.addmm(of_weight, slope.t(), states.to(slope.dtype), **options)
        else:
            of_weight += slope.t() @ states.to(slope.dtype)
    if of_bias is not None:
        of_bias += slope.sum(dim=0, dtype=of_bias.dtype)


def _scaled(gradient: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return factor * gradient, rounded to `dtype` without a copy in the working precision."""
    return torch.mul(gradient, factor, out=torch.empty_like(gradient, dtype=dtype))


def _as_autocast(*tensors: Tensor | None) -> list[Any]:
    """Cast tensors as autocast would.

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

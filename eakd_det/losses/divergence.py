"""Divergences between the next-token distributions of two language models.

p is the teacher's softmax and q the student's, over a vocabulary of V tokens; B counts the
sequences of a batch, L their tokens. The skewed divergences are DistiLLM's (Ko et al., arXiv
2402.03898), the generalised Jensen-Shannon divergence is GKD's (Agarwal et al., arXiv 2306.13649).

All divergences share these arguments:

- `student_logits`, `teacher_logits`: (B, L, V), or any other leading shape, such as (N, V). Logits
  and `labels` belong to the same tokens: for next-token prediction the caller has shifted them.
  The teacher's side gets no gradient.
- `labels`: (B, L); a token counts unless its label is -100. The logits of the other tokens are
  never read.
- `weight`: (B, L) constant factor of each token, or None; `entropy_weight(student_logits,
  teacher_logits)` for EA-KD.
- `num_tokens`: divisor of the sum over tokens; None is the number of tokens that count here. For a
  part of a step (a micro-batch, one of several processes) give the number of the whole step, so
  that the parts add up to the mean over all its tokens.
- `reduction`: "mean", or "none" for (B, L), 0 where a token does not count.

A vocabulary entry whose logit is -inf on either side (padding of the vocabulary) is left out of the
sum. The result is at least float32, and 0 for equal logits; a batch without any token gives a zero
joined to the graph. ValueError is raised if shapes do not match, or an option is unknown or out of
its range.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples

IGNORED = -100  # the label of a token that does not count, as in torch's cross-entropy


def forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(p || q): plain distillation at temperature 1 (arXiv 2402.03898, section 2.1)."""
    logits = student_logits, teacher_logits
    return _over_tokens(_forward, *logits, labels, weight, num_tokens, reduction)


def reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """KL(q || p), which seeks the teacher's modes (arXiv 2402.03898, section 2.1)."""
    logits = student_logits, teacher_logits
    return _over_tokens(_reverse, *logits, labels, weight, num_tokens, reduction)


def skewed_forward_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.1,
    weight: Tensor | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """SKLD, KL(p || alpha p + (1 - alpha) q); alpha in [0, 1) (arXiv 2402.03898, equation 4)."""
    _check_share(alpha, "alpha", below_one=True)
    logits = student_logits, teacher_logits

    def terms(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
        return -p * _log_mixture(log_ratio, alpha)

    return _over_tokens(terms, *logits, labels, weight, num_tokens, reduction)


def skewed_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.1,
    weight: Tensor | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """SRKLD, KL(q || (1 - alpha) p + alpha q); alpha in [0, 1) (arXiv 2402.03898, section 3.1)."""
    _check_share(alpha, "alpha", below_one=True)
    logits = student_logits, teacher_logits

    def terms(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
        return -q * _log_mixture(-log_ratio, alpha)

    return _over_tokens(terms, *logits, labels, weight, num_tokens, reduction)


def symmetric_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.5,
    weight: Tensor | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """(1 - alpha) KL(p || q) + alpha KL(q || p), alpha in [0, 1] (Jeffreys' divergence, halved)."""
    _check_share(alpha, "alpha", below_one=False)
    logits = student_logits, teacher_logits

    def terms(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
        return torch.lerp(_forward(p, q, log_ratio), _reverse(p, q, log_ratio), alpha)

    return _over_tokens(terms, *logits, labels, weight, num_tokens, reduction)


def jensen_shannon(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    beta: float = 0.5,
    weight: Tensor | None = None,
    num_tokens: float | Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (arXiv 2306.13649, eq. 1).

    beta is in (0, 1): at either limit both terms vanish.
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta must be above 0 and below 1, got {beta}")
    logits = student_logits, teacher_logits

    def terms(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
        to_p = -p * _log_mixture(log_ratio, beta)
        return beta * to_p - (1 - beta) * q * _log_mixture(-log_ratio, 1 - beta)

    return _over_tokens(terms, *logits, labels, weight, num_tokens, reduction)


def _forward(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
    return -p * log_ratio


def _reverse(p: Tensor, q: Tensor, log_ratio: Tensor) -> Tensor:
    return q * log_ratio


def _check_share(value: float, name: str, *, below_one: bool) -> None:
    if not 0 <= value <= 1 or (below_one and value == 1):
        end = "below 1" if below_one else "at most 1"
        raise ValueError(f"{name} must be at least 0 and {end}, got {value}")


def _log_mixture(log_ratio: Tensor, share: float) -> Tensor:
    """log(share + (1 - share) e^x) of a log ratio x: 0 at x = 0, without overflow for any x."""
    if share == 0:
        return log_ratio
    below = torch.log1p((1 - share) * torch.expm1(log_ratio.clamp(max=0)))
    above = log_ratio + torch.log1p(share * torch.expm1(-log_ratio.clamp(min=0)))
    return torch.where(log_ratio > 0, above, below)


def _over_tokens(
    terms: Callable[[Tensor, Tensor, Tensor], Tensor],
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    num_tokens: float | Tensor | None,
    reduction: str,
) -> Tensor:
    """Sum `terms(p, q, log q - log p)` over the vocabulary, then reduce over the counted tokens."""
    _check_shapes(student_logits, teacher_logits, labels, weight)
    counts, teacher_logits = labels != IGNORED, teacher_logits.detach()
    if reduction == "none":  # a mask in place of indexing: a GPU need not count the tokens
        ignored = ~counts
        logits = [x.masked_fill(ignored.unsqueeze(-1), 0) for x in (student_logits, teacher_logits)]
        loss = reduce_samples(_per_token(terms, *logits), weight, reduction)
        return loss.masked_fill(ignored, 0)
    per_token = _per_token(terms, student_logits[counts], teacher_logits[counts])
    loss = reduce_samples(per_token, None if weight is None else weight[counts], reduction)
    return loss if num_tokens is None else loss * share_of(len(per_token), num_tokens)


def _per_token(
    terms: Callable[[Tensor, Tensor, Tensor], Tensor],
    student_logits: Tensor,
    teacher_logits: Tensor,
) -> Tensor:
    """Sum `terms` over the vocabulary: (..., V) -> (...)."""
    student = F.log_softmax(at_least_float32(student_logits), dim=-1)
    teacher = F.log_softmax(at_least_float32(teacher_logits), dim=-1)
    is_left_out = (student == -torch.inf) | (teacher == -torch.inf)
    log_ratio = (student - teacher).masked_fill(is_left_out, 0)
    return terms(teacher.exp(), student.exp(), log_ratio).sum(dim=-1)


def share_of(here: int, num_tokens: float | Tensor) -> Tensor:
    """Factor that turns a mean over `here` tokens into their part of a mean over `num_tokens`.

    It is 1 for a step without any token.
    """
    return max(here, 1) / torch.as_tensor(num_tokens).clamp(min=1)


def _check_shapes(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, weight: Tensor | None
) -> None:
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"the student's logits have shape {tuple(student_logits.shape)} and the teacher's "
            f"{tuple(teacher_logits.shape)}: tokens and vocabulary must be the same"
        )
    for name, value in [("labels", labels), ("weight", weight)]:
        if value is not None and value.shape != student_logits.shape[:-1]:
            raise ValueError(
                f"{name} must have one value for each token of {tuple(student_logits.shape[:-1])}, "
                f"got shape {tuple(value.shape)}"
            )

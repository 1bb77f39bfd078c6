"""Multi-level logit distillation, MLD (Jin et al., CVPR 2023).

N counts images, C classes, T temperatures tau; the weak and the strong view are two augmentations
of the same images. P and Q are the (N, C) softmax matrices of teacher and student in one view at
one temperature.
"""

from collections import Counter
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples
from .standardize import standardize as standardize_logits

STRONG = (3.0, 5.0)  # fixed temperatures at which the released code compares strong views,
SLIPPED = (2.0, 6.0)  # and those at which it takes weak ones in their place


def multi_level_loss(
    student_weak_logits: Tensor,
    student_strong_logits: Tensor,
    teacher_weak_logits: Tensor,
    teacher_strong_logits: Tensor,
    *,
    temperature: float = 4.0,
    standardize: bool = False,
    weak_weight: Tensor | None = None,
    strong_weight: Tensor | None = None,
    as_intended: bool = False,
) -> Tensor:
    """Instance, batch and class level, summed over temperatures and views (CVPR 2023).

    At each tau the instance level is tau^2 mean_n KL(P_n || Q_n), the batch level
    ||P P' - Q Q'||^2 / N, the class level ||P' P - Q' Q||^2 / C.

    Args:
        student_weak_logits, student_strong_logits, teacher_weak_logits, teacher_strong_logits:
            (N, C). The teacher's side gets no gradient.
        temperature: one tau; the others are 2, 3, 5 and 6. One of those given here counts twice.
        standardize: LS (C at least 2) of the instance level; the other levels take raw logits.
        weak_weight, strong_weight: (N,) factor of each image on the instance level of that view,
            or None.
        as_intended: False gives the released code's value. It multiplies the weak view's terms by
            the share of images (of classes, on the class level) of which the teacher is no surer
            than of the median one; its strong view has the instance level alone, which at 2 and 6
            takes the weak logits. True selects those images and classes, and compares both views
            on all levels at all temperatures.

    Returns:
        A scalar, at least float32. No images give a zero joined to the graph.

    Raises:
        ValueError: a weight is not (N,), or `standardize` with C = 1.
    """
    students = [at_least_float32(x) for x in (student_weak_logits, student_strong_logits)]
    teachers = [at_least_float32(x.detach()) for x in (teacher_weak_logits, teacher_strong_logits)]
    like = students[0].dtype, students[0].device
    n, c = max(len(students[0]), 1), students[0].shape[1]
    # Autocast would take the matrix products in half precision.
    with torch.autocast(students[0].device.type, enabled=False):
        images, classes = _of_low_confidence(teachers[0])
        taus, counts, slips = _temperatures((temperature, *STRONG, *SLIPPED), *like)
        if as_intended:
            batch = counts / n * _of_rows(images)
            weak = taus, counts * images[:, None], batch, counts / c * _of_rows(classes)
            strong = taus, counts, batch, counts / c
        else:
            images, classes = (
                x.sum(dtype=like[0]) / size for x, size in ((images, n), (classes, c))
            )
            weak = taus, counts * images + slips, counts * (images / n), counts * (classes / c)
            taus, counts, _ = _temperatures((temperature, *STRONG), *like)
            strong = taus, counts, None, None
        views = zip(students, teachers, (weak_weight, strong_weight), (weak, strong), strict=True)
        weak_loss, strong_loss = (
            _compare(student, teacher, weight, standardize, *factors)
            for student, teacher, weight, factors in views
        )
    return weak_loss + strong_loss


@lru_cache(maxsize=16)  # spares each step a copy to the device
def _temperatures(temperatures, dtype, device):
    """(T, 1, 1) each: distinct temperatures, how often they come, whether they are SLIPPED."""
    rows = [(tau, count, tau in SLIPPED) for tau, count in Counter(temperatures).items()]
    with torch.inference_mode(False):  # training may follow
        return torch.tensor(rows, dtype=dtype, device=device).T[..., None, None].unbind()


def _of_low_confidence(teacher):
    """(N,) images and (C,) classes of which the teacher is no surer than of the median one."""
    p = F.softmax(teacher, dim=1)
    confidences = p.amax(dim=1), p.sum(dim=0)
    # torch's median of an even number is the lower one: what is below their mean is up to it.
    return [confidence <= confidence.median() for confidence in confidences]


def _of_rows(chosen):
    """(M, M) factor of a symmetric matrix, so that its rows count where `chosen`, (M,), is true."""
    return 0.5 * chosen + 0.5 * chosen[:, None]


def _compare(student, teacher, weight, standardize, taus, images, batch, classes):
    """The terms of one view.

    Args:
        images: factor of tau^2 KL / N at each temperature, (T, 1, 1) or (T, N, 1).
        batch, classes: factors of (P P' - Q Q')^2 and (P' P - Q' Q)^2, (T, 1, 1) or matrices; or
            None to leave both levels away.
    """
    images = images * (taus.square() / max(len(student), 1))
    if weight is not None:
        weights = reduce_samples(images.new_ones(len(student)), weight, "none")
        images = images * weights.to(images.dtype)[:, None]
    if not standardize:
        return _Levels.apply(student, teacher, taus, images, batch, classes)
    standardized = standardize_logits(student), standardize_logits(teacher)
    loss = _Levels.apply(*standardized, taus, images, None, None)
    if batch is None:
        return loss
    return loss + _Levels.apply(student, teacher, taus, None, batch, classes)


class _Levels(torch.autograd.Function):
    """Sum of images * KL + batch * (P P' - Q Q')^2 + classes * (P' P - Q' Q)^2, or of its parts.

    The gradient in the student's logits is taken along, in closed form: most of it is work that
    the value needs anyway.
    """

    @staticmethod
    def forward(ctx, student, teacher, taus, images, batch, classes):
        logits = torch.stack([student, teacher])
        x = (logits - logits.amax(dim=-1, keepdim=True))[:, None] / taus
        probabilities = F.softmax(x, dim=-1)
        q, p = probabilities
        difference = q - p
        value, gradients = 0.0, 0.0
        if images is not None:
            # One exponential does for both: the largest p, at x = 0, is 1 / sum of exp(x).
            log_q, log_p = x.add_(probabilities.amax(dim=-1, keepdim=True).log_())
            value = torch.dot((p * images).flatten(), (log_p - log_q).flatten())
            gradients = difference * images
        if batch is not None:
            correlations, gradient = _batch_and_class_level(q, difference, q + p, batch, classes)
            value = value + correlations
            gradients = gradients + gradient
        ctx.save_for_backward((gradients / taus).sum(dim=0))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None, None


def _batch_and_class_level(q, difference, total, batch, classes):
    """Value, and gradient in the logits / tau, (T, N, C).

    Q Q' - P P' is half of D = (Q - P) (Q + P)' and its transpose added: one matrix product in place
    of two. Its gradient in Q is 2 batch * D Q.
    """
    of_batch, of_classes = difference @ total.mT, difference.mT @ total
    of_batch, of_classes = of_batch + of_batch.mT, of_classes + of_classes.mT
    weighted_batch, weighted_classes = of_batch * batch, of_classes * classes
    value = torch.dot(of_batch.flatten(), weighted_batch.flatten())
    value = value + torch.dot(of_classes.flatten(), weighted_classes.flatten())
    gradient = torch.baddbmm(weighted_batch @ q, q, weighted_classes)
    gradient *= q
    gradient -= q * gradient.sum(dim=-1, keepdim=True)
    return value / 4, gradient * 2

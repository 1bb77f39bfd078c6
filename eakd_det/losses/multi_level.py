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

# Fixed temperatures at which the released code compares strong views, and those at which it takes
# the weak views in their place.
STRONG = (3.0, 5.0)
SLIPPED = (2.0, 6.0)


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
    """Instance, batch and class level losses, summed over temperatures and views (CVPR 2023).

    At each tau the instance level is tau^2 mean_n KL(P_n || Q_n), the batch level
    ||P P' - Q Q'||^2 / N, the class level ||P' P - Q' Q||^2 / C.

    Args:
        student_weak_logits, student_strong_logits, teacher_weak_logits, teacher_strong_logits:
            (N, C). The teacher's side gets no gradient.
        temperature: one tau; the others are 2, 3, 5 and 6. If it is one of those, it counts twice.
        standardize: apply LS (C at least 2) on the instance level; the others take raw logits.
        weak_weight, strong_weight: (N,) factor of each image on the instance level of that view,
            or None.
        as_intended: False gives the released code's value. It multiplies the weak view's terms by
            the fraction of images (of classes, on the class level) on which the teacher's
            confidence is at most the median; its strong view has the instance level alone, which
            takes the weak logits at 2 and 6. True selects those images and classes, and compares
            both views on all levels at all temperatures.

    Returns:
        A scalar, at least float32. No images give a zero joined to the graph.

    Raises:
        ValueError: a weight is not (N,), or `standardize` is set with C = 1.
    """
    students = [at_least_float32(x) for x in (student_weak_logits, student_strong_logits)]
    teachers = [at_least_float32(x.detach()) for x in (teacher_weak_logits, teacher_strong_logits)]
    like = *students[0].shape, students[0].dtype, students[0].device
    # Autocast would compute the matrix products in half precision.
    with torch.autocast(students[0].device.type, enabled=False):
        images, classes = _low_confidence(teachers[0])
        everywhere = (temperature, *STRONG, *SLIPPED)
        taus, of_images, of_slips, of_batch, of_classes = _factors(everywhere, *like)
        if as_intended:
            batch = of_batch * _row_factor(images)
            weak = taus, of_images * images[:, None], batch, of_classes * _row_factor(classes)
            strong = taus, of_images, batch, of_classes
        else:
            images, classes = images.mean(dtype=taus.dtype), classes.mean(dtype=taus.dtype)
            weak = taus, of_images * images + of_slips, of_batch * images, of_classes * classes
            taus, of_images, *_ = _factors((temperature, *STRONG), *like)
            strong = taus, of_images, None, None
        terms = [
            *_compare(students[0], teachers[0], weak_weight, standardize, *weak),
            *_compare(students[1], teachers[1], strong_weight, standardize, *strong),
        ]
    inputs, values, gradients = zip(*terms, strict=True)
    return _WithGradients.apply(sum(values[1:], values[0]), gradients, *inputs)


@lru_cache(maxsize=16)  # spares each step a copy to the device
def _factors(temperatures, n, c, dtype, device):
    """Return the distinct temperatures and the factors of their terms, (T, 1, 1) each.

    The factors, which count repeated temperatures, are those of the KL, of the KL at the
    temperatures SLIPPED (else 0), and of the squares of the batch and of the class level.
    """
    n = max(n, 1)
    rows = [
        (tau, count * tau**2 / n, (tau in SLIPPED) * tau**2 / n, count / n, count / c)
        for tau, count in Counter(temperatures).items()
    ]
    with torch.inference_mode(False):  # training may follow
        return torch.tensor(rows, dtype=dtype, device=device).T[..., None, None].unbind()


@torch.no_grad()
def _low_confidence(teacher):
    """Masks of (N,) images and (C,) classes on which the teacher's confidence is at most median."""
    p = F.softmax(teacher, dim=1)
    confidences = p.amax(dim=1), p.sum(dim=0)
    # For an even number torch.median gives the lower middle value: <= selects the lower half.
    return [confidence <= confidence.median() for confidence in confidences]


def _row_factor(chosen):
    """(M, M) factor of a symmetric matrix that counts the rows where `chosen`, (M,), is true."""
    return 0.5 * chosen + 0.5 * chosen[:, None]


def _compare(student, teacher, weight, standardize, taus, images, batch, classes):
    """Compute the terms of one view: one or two triples (student logits, value, gradient in them).

    Args:
        images: factor of the KL at each temperature, (T, 1, 1) or (T, N, 1).
        batch, classes: factors of (P P' - Q Q')^2 and (P' P - Q' Q)^2, (T, 1, 1) or matrices; None
            leaves both levels out.
    """
    if weight is not None:
        weights = reduce_samples(taus.new_ones(len(student)), weight, "none")
        images = images * weights.to(taus.dtype)[:, None]
    if not standardize:
        return [(student, *_levels(student, teacher, taus, images, batch, classes))]
    standardized = standardize_logits(student), standardize_logits(teacher)
    terms = [(standardized[0], *_levels(*standardized, taus, images))]
    if batch is not None:
        terms += [(student, *_levels(student, teacher, taus, None, batch, classes))]
    return terms


@torch.no_grad()
def _levels(student, teacher, taus, images, batch=None, classes=None):
    """Sum images * KL + batch * (P P' - Q Q')^2 + classes * (P' P - Q' Q)^2, or some of its terms.

    Returns:
        The value, and its gradient in the student's logits in closed form, which shares most of
        its work with the value.
    """
    logits = torch.stack([student, teacher])
    logits -= logits.amax(dim=-1, keepdim=True)
    probabilities = F.softmax(logits[:, None] / taus, dim=-1)
    value: Tensor | float = 0.0
    gradient: Tensor | float = 0.0
    if images is not None:
        # The largest logit is 0, so that log_softmax is logits / tau + log of the largest p.
        log_q, log_p = probabilities.amax(dim=-1, keepdim=True).log_()
        q, p = (probabilities * (images / taus)).sum(dim=1)
        value = torch.dot(p.flatten(), (logits[1] - logits[0]).flatten())
        value += ((log_p - log_q) * images).sum()
        gradient = q - p
    if batch is not None:
        more, more_gradient = _correlations(probabilities[0], probabilities[1], batch, classes)
        more_gradient *= 4 / taus
        value, gradient = value + more, gradient + more_gradient.sum(dim=0)
    return value, gradient


def _correlations(q, p, batch, classes):
    """Value of the batch and class level, and tau / 4 of the gradient in the logits.

    With M = (Q + P) / 2, D = Q Q' - P P' equals (Q - P) M' plus its transpose, one matrix product
    in place of two. The gradient of the squared norm of D in Q is 4 D Q.
    """
    difference, mean = q - p, torch.lerp(q, p, 0.5)
    of_batch, of_classes = torch.bmm(difference, mean.mT), torch.bmm(difference.mT, mean)
    of_batch, of_classes = of_batch + of_batch.mT, of_classes + of_classes.mT
    weighted_batch, weighted_classes = of_batch * batch, of_classes * classes
    value = torch.dot(of_batch.flatten(), weighted_batch.flatten())
    value += torch.dot(of_classes.flatten(), weighted_classes.flatten())
    gradient = torch.baddbmm(torch.bmm(weighted_batch, q), q, weighted_classes)
    gradient *= q
    gradient.addcmul_(q, gradient.sum(dim=-1, keepdim=True), value=-1)
    return value, gradient


class _WithGradients(torch.autograd.Function):
    """Attach given gradients in `inputs` to a value."""

    @staticmethod
    def forward(ctx, value, gradients, *inputs):
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):
        return None, None, *(gradient * grad_output for gradient in ctx.saved_tensors)

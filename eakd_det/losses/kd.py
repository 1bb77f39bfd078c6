"""Knowledge distillation, KD (Hinton et al., arXiv 1503.02531).

EA-KD is `kd_loss(..., weight=entropy_weight(...))`. N counts samples (images, ROIs or tokens),
C the classes of the softmax.
"""

from torch import Tensor
from torch.nn import functional as F

from .reduction import reduce_samples
from .softmax import log_softmax


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float | Tensor = 4.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)) (arXiv 1503.02531, section 2).

    Args:
        student_logits, teacher_logits: (N, C). The teacher's side gets no gradient.
        temperature: T; a scalar tensor gets a gradient through both softmaxes and the factor
            (CTKD).
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    student = log_softmax(student_logits, temperature)
    teacher = log_softmax(teacher_logits, temperature, constant=True)
    # kl_div takes (log q, log p) for KL(p || q): the student stands first.
    loss = F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1)
    return reduce_samples(loss * temperature**2, weight, reduction)

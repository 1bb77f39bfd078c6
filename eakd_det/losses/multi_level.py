"""Multi-level logit distillation, MLD (Jin et al., CVPR 2023): instances, batches and classes.

Each image comes in a weak and a strong view. N counts images, C classes, T temperatures.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32
from .standardize import standardize as standardise

FIXED_TEMPERATURES = (3.0, 5.0, 2.0, 6.0)  # beside the base temperature
STRONG_IN_RELEASE = 3  # of the five temperatures, which the released code takes the strong view for


def multi_level_loss(
    student_weak_logits: Tensor,
    student_strong_logits: Tensor,
    teacher_weak_logits: Tensor,
    teacher_strong_logits: Tensor,
    *,
    temperature: float = 4.0,
    standardize: bool = False,
    as_published: bool = False,
    weak_weight: Tensor | None = None,
    strong_weight: Tensor | None = None,
) -> Tensor:
    """Sum of the three levels."""
    student_weak, student_strong = (
        at_least_float32(x) for x in (student_weak_logits, student_strong_logits)
    )
    teacher_weak, teacher_strong = (
        at_least_float32(x.detach()) for x in (teacher_weak_logits, teacher_strong_logits)
    )
    number, classes = student_weak.shape
    temperatures = student_weak.new_tensor([temperature, *FIXED_TEMPERATURES])
    probabilities = teacher_weak.softmax(dim=1)
    confidence, popularity = probabilities.amax(dim=1), probabilities.sum(dim=0)
    images = confidence <= confidence.quantile(0.5)
    columns = popularity <= popularity.quantile(0.5)
    log_p, log_q = (
        F.log_softmax(x / temperatures.view(-1, 1, 1), dim=-1) for x in (teacher_weak, student_weak)
    )
    batch, classwise = _batch_and_class(log_p.exp(), log_q.exp())

    def instance(student, teacher, weight):
        if standardize:
            student, teacher = standardise(student), standardise(teacher)
        log_p = F.log_softmax(teacher / temperatures.view(-1, 1, 1), dim=-1)
        log_q = F.log_softmax(student / temperatures.view(-1, 1, 1), dim=-1)
        kl = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)
        kl = kl * temperatures.square().view(-1, 1)
        return (kl if weight is None else kl * weight.detach()).mean(dim=1)

    weak = instance(student_weak, teacher_weak, weak_weight)
    strong = instance(student_strong, teacher_strong, strong_weight)
    images, columns = images.to(weak.dtype).mean(), columns.to(weak.dtype).mean()
    strong = strong[:STRONG_IN_RELEASE].sum() + weak[STRONG_IN_RELEASE:].sum()
    return images * (weak.sum() + batch.sum()) + columns * classwise.sum() + strong


def _batch_and_class(p, q):
    batch = (p @ p.mT - q @ q.mT).square().sum(dim=(1, 2)) / p.shape[1]
    classwise = (p.mT @ p - q.mT @ q).square().sum(dim=(1, 2)) / p.shape[2]
    return batch, classwise

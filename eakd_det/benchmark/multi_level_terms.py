"""Terms of MLD one by one, a plain reference for tests and timings of `multi_level_loss`."""

from torch.nn import functional as F

from eakd_det.losses import standardize as standardize_logits


def kl(student, teacher, tau):
    """Return tau^2 KL of each sample, (N,)."""
    log_q, log_p = F.log_softmax(student / tau, dim=1), F.log_softmax(teacher / tau, dim=1)
    return tau**2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)


def batch_errors(student, teacher, tau):
    """Return the squared differences of the batch's correlations, (N, N)."""
    q, p = F.softmax(student / tau, dim=1), F.softmax(teacher / tau, dim=1)
    return (p @ p.T - q @ q.T) ** 2


def class_errors(student, teacher, tau):
    """Return the squared differences of the classes' correlations, (C, C)."""
    q, p = F.softmax(student / tau, dim=1), F.softmax(teacher / tau, dim=1)
    return (p.T @ p - q.T @ q) ** 2


def confidences(teacher):
    """Return the teacher's confidences of images, (N,), and of classes, (C,)."""
    p = F.softmax(teacher, dim=1)
    return p.amax(dim=1), p.sum(dim=0)


def masks(teacher):
    return [x <= x.quantile(0.5) if len(x) else x.bool() for x in confidences(teacher)]


def share(mask):
    return mask.double().mean().item() if len(mask) else 0.0


def mean(values):
    return values.sum() / max(len(values), 1)


def released_terms(weak, strong, weights, temperature, standardize):
    """Return the instance, class and batch level terms of the released code."""
    weak_z, strong_z = (
        [standardize_logits(z) for z in view] if standardize else view for view in (weak, strong)
    )
    weak_w, strong_w = weights
    images, classes = (share(mask) for mask in masks(weak[1]))
    temperatures = (temperature, 3.0, 5.0, 2.0, 6.0)
    return {
        "kd_weak": sum(images * mean(weak_w * kl(*weak_z, tau)) for tau in temperatures),
        "kd_strong": sum(mean(strong_w * kl(*strong_z, tau)) for tau in (temperature, 3.0, 5.0))
        + sum(mean(weak_w * kl(*weak_z, tau)) for tau in (2.0, 6.0)),
        "cc_weak": sum(
            classes * class_errors(*weak, tau).sum() / weak[0].shape[1] for tau in temperatures
        ),
        "bc_weak": sum(
            images * batch_errors(*weak, tau).sum() / max(len(weak[0]), 1) for tau in temperatures
        ),
    }


def one_by_one(
    student_weak,
    student_strong,
    teacher_weak,
    teacher_strong,
    *,
    temperature=4.0,
    standardize=False,
    weak_weight=None,
    strong_weight=None,
    terms=released_terms,
):
    """Return the loss as a sum of single terms."""
    weights = [1.0 if weight is None else weight for weight in (weak_weight, strong_weight)]
    weak, strong = (student_weak, teacher_weak), (student_strong, teacher_strong)
    return sum(terms(weak, strong, weights, temperature, standardize).values())

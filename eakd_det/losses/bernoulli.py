"""KD and entropy for sigmoid classifiers, whose classes are independent Bernoulli variables.

They are our own and from no paper. N counts samples (anchors), C the classes. The EA weight is
`combine_entropies` of two Bernoulli entropies with 2 outcomes.
"""

from torch import Tensor
from torch.nn import functional as F

from .reduction import at_least_float32, reduce_samples


def bernoulli_entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean Bernoulli entropy over the classes, of sigmoid(logits / temperature), in nats.

    Args:
        logits: (N, C).
        temperature: divides the logits; above 1 it moves the probabilities towards 1/2.

    Returns:
        (N,), between 0 and log 2; exact for saturated logits. Empty input gives (0,).
    """
    # The entropy is even in the logit; for negative logits no terms cancel.
    size = (at_least_float32(logits) / temperature).abs()
    return (F.softplus(-size) + size * (-size).sigmoid()).mean(dim=-1)


def bernoulli_kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 4.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """T^2 times the sum over the classes of KL(sigmoid(teacher / T) || sigmoid(student / T)).

    For one class it is `kd_loss` on the logits (z, 0).

    Args:
        student_logits, teacher_logits: (N, C). The teacher's side gets no gradient.
        temperature: T.
        weight: (N,) factor of each sample, or None.
        reduction: "mean" over the N samples, or "none".

    Returns:
        A scalar, or (N,) with "none"; at least float32. No samples give a zero joined to the graph.

    Raises:
        ValueError: `weight` is not (N,), or `reduction` is unknown.
    """
    student = at_least_float32(student_logits) / temperature
    teacher = at_least_float32(teacher_logits.detach()) / temperature
    loss = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    loss = loss + (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return reduce_samples(loss.sum(dim=-1) * temperature**2, weight, reduction)

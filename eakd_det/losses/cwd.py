"""Channel-wise distillation, CWD (Shu et al., ICCV 2021, arXiv 2011.13256).

Feature maps are lists from the finest level to the coarsest; N counts images.
"""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from .levels import pair_levels, reduce_levels


def cwd_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    *,
    temperature: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """KL divergence of each channel's softmax over the positions (arXiv 2011.13256, equation 4).

    A level's loss of an image is T^2 times the mean over the channels of KL(teacher || student);
    the levels are added. A map of one position gives 0.

    Args:
        student_features, teacher_features: maps (N, channels, H, W), of equal shapes on each level.
            The teacher's side gets no gradient.
        temperature: T.
        weight: (N,) factor of each image, or None.

    Returns:
        The mean over the images, a scalar; at least float32. No image gives a zero joined to the
        graph.

    Raises:
        ValueError: the maps differ in number or shape, or `weight` is not (N,).
    """
    pairs = pair_levels(student_features, teacher_features)
    return reduce_levels([_cwd_of_level(*pair, temperature) for pair in pairs], weight)


def _cwd_of_level(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """CWD of each image on one level, (N,)."""
    log_q, log_p = (F.log_softmax(x.flatten(2) / temperature, dim=2) for x in (student, teacher))
    # kl_div takes (log q, log p) for KL(p || q): the student stands first.
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=2)
    return temperature**2 * divergence.mean(dim=1)

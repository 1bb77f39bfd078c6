"""Focal and global distillation, FGD (Yang et al., CVPR 2022, arXiv 2111.11837).

Feature maps are lists from the finest level to the coarsest; N counts images.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .box_masks import box_fractions, box_masks
from .levels import pair_levels, reduce_levels
from .map_adapter import MapAdapter
from .reduction import at_least_float32


def fgd_loss(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    contexts: Sequence[tuple[Tensor, Tensor]],
    boxes: Sequence[Tensor],
    sizes: Sequence[tuple[float, float]],
    *,
    temperature: float = 0.5,
    alpha: float = 5e-5,
    beta: float = 2.5e-5,
    gamma: float = 5e-5,
    lambd: float = 5e-7,
    weight: Tensor | None = None,
) -> Tensor:
    """Focal and global loss (arXiv 2111.11837, equation 14), summed over the levels.

    Args:
        student_features, contexts: what `GlobalRelation` returns.
        teacher_features: maps (N, channels, H, W) of the same shapes. They get no gradient.
        boxes: (boxes, 4) ground truth of each image, xyxy.
        sizes: (height, width) by which an image's boxes are divided, in their unit: of what the
            maps cover.
        temperature: of the attentions.
        alpha, beta, gamma, lambd: factors of foreground, background, attention and global relation
            (lambda), small because these are sums over channels and positions.
        weight: (N,) factor of each image, or None.

    Returns:
        The mean over the images, a scalar; at least float32. No image gives a zero joined to the
        graph.

    Raises:
        ValueError: the maps differ in number or shape, or `weight` is not (N,).
    """
    if not boxes:
        return 0 * torch.stack([at_least_float32(x).sum() for x in student_features]).sum()
    pairs, fractions = pair_levels(student_features, teacher_features), box_fractions(boxes, sizes)
    levels = []
    for (student, teacher), context in zip(pairs, contexts, strict=True):
        masks = box_masks(fractions, student.shape[-2:])
        parts = fgd_parts(student, teacher, context, masks, temperature)
        foreground, background, attention, relation = parts
        focal = alpha * foreground + beta * background
        levels.append(focal + gamma * attention + lambd * relation)
    return reduce_levels(levels, weight)


def fgd_parts(
    student: Tensor,
    teacher: Tensor,
    context: tuple[Tensor, Tensor],
    masks: tuple[Tensor, Tensor],
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the parts of a level: foreground, background, attention and global relation, (N,).

    Args:
        student, teacher: (N, channels, H, W).
        context: (N, channels) added to each position of student and teacher.
        masks: (N, H, W) weights of foreground and background.
    """
    spatial = [spatial_attention(x, temperature) for x in (student, teacher)]
    channel = [channel_attention(x, temperature) for x in (student, teacher)]
    difference = student - teacher
    # The attention of the teacher alone weighs the errors.
    error = (difference.square() * channel[1][:, :, None, None]).sum(dim=1) * spatial[1]
    foreground, background = ((error * mask).sum(dim=(1, 2)) for mask in masks)
    attention = (channel[0] - channel[1]).abs().sum(dim=1)
    attention = attention + (spatial[0] - spatial[1]).abs().sum(dim=(1, 2))
    added = context[0] - context[1]
    relation = (difference + added[:, :, None, None]).square().sum(dim=(1, 2, 3))
    return foreground, background, attention, relation


def spatial_attention(features: Tensor, temperature: float) -> Tensor:
    """H * W times the softmax over positions of the mean absolute value, (N, H, W)."""
    logits = features.abs().mean(dim=1).flatten(1) / temperature
    attention = logits.shape[1] * logits.softmax(dim=1)
    return attention.unflatten(1, features.shape[-2:])


def channel_attention(features: Tensor, temperature: float) -> Tensor:
    """Channels times the softmax over channels of the mean absolute value, (N, channels)."""
    logits = features.abs().mean(dim=(2, 3)) / temperature
    return logits.shape[1] * logits.softmax(dim=1)


class GlobalContext(nn.Module):
    """Global context block (Cao et al., arXiv 1904.11492) without its residual connection.

    State-dict keys are those of FGD's released code without "_s" and "_t". The last convolution
    begins with zeros.
    """

    def __init__(self, channels: int):
        super().__init__()
        middle = max(channels // 2, 1)
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, middle, 1),
            nn.LayerNorm([middle, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, channels, 1),
        )
        nn.init.kaiming_normal_(self.conv_mask.weight)
        for parameter in self.channel_add_conv[3].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Return what the block adds to each position of (N, channels, H, W), (N, channels)."""
        mask = self.conv_mask(features).flatten(2).softmax(dim=2)
        pooled = features.flatten(2) @ mask.transpose(1, 2)  # (N, channels, 1)
        return self.channel_add_conv(pooled[..., None])[:, :, 0, 0]


class GlobalRelation(nn.Module):
    """Modules of FGD that train with the student: on each level an adapter and two context blocks.

    The block of the teacher's side is trained, too.
    """

    def __init__(self, student_channels: Sequence[int], teacher_channels: Sequence[int]):
        """
        Args:
            student_channels, teacher_channels: channels of the levels.

        Raises:
            ValueError: student and teacher differ in the number of levels.
        """
        super().__init__()
        self.adapter = MapAdapter(student_channels, teacher_channels)
        self.student = nn.ModuleList(map(GlobalContext, teacher_channels))
        self.teacher = nn.ModuleList(map(GlobalContext, teacher_channels))

    def forward(
        self, student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Return the student's adapted maps, and the contexts of both networks on each level.

        The contexts are (N, teacher_channels), computed in at least float32 under autocast, too: a
        softmax over the positions of a fine level is below the normal range of float16.
        """
        shapes = [x.shape[-2:] for x in teacher_features]
        maps = [at_least_float32(x) for x in self.adapter(student_features, shapes)]
        with torch.autocast(maps[0].device.type, enabled=False):
            contexts = [
                (of_student(x), of_teacher(at_least_float32(t.detach())))
                for of_student, of_teacher, x, t in zip(
                    self.student, self.teacher, maps, teacher_features, strict=True
                )
            ]
        return maps, contexts

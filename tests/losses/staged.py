"""A small staged network, pairs of such networks, and random outputs of a pair."""

import torch
from torch import nn
from torch.nn import functional as F

from eakd_det.losses import FeatureBridges
from eakd_det.losses.fcfd_paths import PathOutputs

CLASSES = 6


class Staged(nn.Module):
    """Staged network with one convolution a stage."""

    def __init__(self, channels, *, strides=None, emits="after_activation", norm=nn.BatchNorm2d):
        super().__init__()
        self.num_stages, self.emits = len(channels), emits
        self.stages = nn.ModuleList()
        strides = strides or [1, 1] + [2] * (len(channels) - 2)
        for width_in, width, stride in zip([3, *channels], channels, strides, strict=False):
            convolution = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
            self.stages.append(nn.Sequential(convolution, norm(width)))
        self.linear = nn.Linear(channels[-1], CLASSES)

    def stage(self, stage, x):
        if self.emits == "after_activation":
            return F.relu(self.stages[stage](x))
        return self.stages[stage](F.relu(x) if stage else x)

    def head(self, x):
        return self.linear(F.relu(x).mean(dim=(2, 3)))


def make_images(images=3, size=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(images, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)


def make_pair(stages=4, dtype=torch.float64, **options):
    """Student, frozen teacher and their bridges, in training mode."""
    torch.manual_seed(0)
    student = Staged(range(3, 3 + stages), **options).to(dtype)
    teacher = Staged(range(4, 4 + stages), **options).to(dtype).requires_grad_(False)
    return student, teacher, FeatureBridges(student, teacher, make_images(dtype=dtype)).to(dtype)


def make_outputs(images=3, dtype=torch.float64):
    """Random outputs of two mixed paths, one to the teacher after stage 1; and their leaves."""
    generator = torch.Generator().manual_seed(1)

    def leaf(*shape):
        x = torch.randn(images, *shape, generator=generator, dtype=torch.float64).to(dtype)
        return x.requires_grad_()

    shapes = [(2, 4, 4), (3, 2, 2), (5, 2, 2)]
    outputs = PathOutputs(
        student_logits=leaf(CLASSES),
        teacher_logits=leaf(CLASSES),
        mixed_logits=[leaf(CLASSES), leaf(CLASSES)],
        teacher_maps=[leaf(*shape) for shape in shapes],
        bridged_maps=[[leaf(*shape) for _ in range(1 + (k > 0))] for k, shape in enumerate(shapes)],
    )
    bridged = [x for maps in outputs.bridged_maps for x in maps]
    students = [outputs.student_logits, *outputs.mixed_logits, *bridged]
    return outputs, students, [outputs.teacher_logits, *outputs.teacher_maps]

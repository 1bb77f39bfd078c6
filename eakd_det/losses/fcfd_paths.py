"""Paths of FCFD (Liu et al., ICLR 2023) through two staged networks, and their outputs.

N counts images, C classes, S stages; maps are (N, channels, H, W).
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .fcfd_bridges import STUDENT, TEACHER, FeatureBridges, pure_maps


class MixedPath(NamedTuple):
    """A path that begins in one network and ends in the other.

    Attributes:
        switch: last stage in the first network; the bridge of that stage leads to the other.
        to: TEACHER or STUDENT, the network in which the path ends.
    """

    switch: int
    to: int


def mixed_paths(num_stages: int) -> list[MixedPath]:
    """List all paths with one switch that have the stem and a stage before it and a stage after."""
    return [MixedPath(k, to) for to in (STUDENT, TEACHER) for k in range(1, num_stages - 1)]


def draw_paths(num_stages: int, seed: int) -> list[MixedPath]:
    """Draw two different paths of `mixed_paths`, all pairs being equally likely.

    Args:
        seed: determines the draw. Use another one for each step, and the same one for all processes
            and micro-batches of a step, so that they, and a resumed run, draw the same paths.
    """
    return random.Random(seed).sample(mixed_paths(num_stages), 2)


@dataclass
class PathOutputs:
    """Outputs of the two networks and of the mixed paths for a batch.

    Attributes:
        student_logits, teacher_logits: (N, C), each network alone.
        mixed_logits: (N, C) for each mixed path.
        teacher_maps: the teacher's maps, one for each stage from 1 on.
        bridged_maps: for each of these the maps to compare with it: the student's over the bridge,
            and those of mixed paths that have switched to the teacher.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    mixed_logits: list[Tensor]
    teacher_maps: list[Tensor]
    bridged_maps: list[list[Tensor]]


def run_paths(
    student: nn.Module,
    teacher: nn.Module,
    bridges: FeatureBridges,
    images: Tensor,
    paths: Sequence[MixedPath],
) -> PathOutputs:
    """Run each network alone, and the mixed paths, which share its maps up to their switch.

    Args:
        student: network in training mode.
        teacher: network with frozen parameters, since gradients of mixed paths pass through it;
            also in training mode, as in the released code: it normalises by the batch, and its
            running statistics change.
        bridges: bridges of these two networks.
        images: (N, 3, H, W).
        paths: different paths, as from `draw_paths`.

    Returns:
        The outputs. Mixed paths normalise by the batch and change no running statistics.
    """
    with torch.no_grad():
        teacher_maps = pure_maps(teacher, images)
        teacher_logits = teacher.head(teacher_maps[-1])
    student_maps = pure_maps(student, images)
    student_logits = student.head(student_maps[-1])
    bridged = [[bridges(k, x, to=TEACHER)] for k, x in enumerate(student_maps[1:], start=1)]
    mixed_logits = []
    with _running_statistics_kept(student, teacher):
        for switch, to in paths:
            network = teacher if to == TEACHER else student
            x = bridged[switch - 1][0]
            if to == STUDENT:
                x = bridges(switch, teacher_maps[switch], to=STUDENT)
            for stage in range(switch + 1, network.num_stages):
                x = network.stage(stage, x)
                if to == TEACHER:
                    bridged[stage - 1].append(x)
            mixed_logits.append(network.head(x))
    return PathOutputs(student_logits, teacher_logits, mixed_logits, teacher_maps[1:], bridged)


@contextmanager
def _running_statistics_kept(*networks: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms in training mode, which normalise by the batch.

    The released code keeps separate statistics for mixed paths, which are never read.
    """
    norms = [
        module
        for network in networks
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True

"""The paths of FCFD (Liu et al., ICLR 2023) through two staged networks, and what they say.

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
    """Begins in one network and ends in the other.

    Attributes:
        switch: last stage of the network it begins in; the bridge of that stage leads over.
        to: TEACHER or STUDENT, the network it ends in.
    """

    switch: int
    to: int


def mixed_paths(num_stages: int) -> list[MixedPath]:
    """All paths that change once, with the stem and one stage at least before it and one after."""
    return [MixedPath(k, to) for to in (STUDENT, TEACHER) for k in range(1, num_stages - 1)]


def draw_paths(num_stages: int, seed: int) -> list[MixedPath]:
    """Two different paths of `mixed_paths`, each pair as likely as any other.

    Args:
        seed: the whole draw comes from it. Make it another one for each step and the same one for
            all processes and parts of a step: they then draw alike, and so does a resumed run.
    """
    return random.Random(seed).sample(mixed_paths(num_stages), 2)


@dataclass
class PathOutputs:
    """What the two networks and the paths between them say of a batch.

    Attributes:
        student_logits, teacher_logits: (N, C), each network alone.
        mixed_logits: (N, C) of each mixed path.
        teacher_maps: the teacher's own, of each stage from 1 on.
        bridged_maps: what is compared with each of these: the student's map over the bridge, and
            those of mixed paths that have gone over to the teacher.
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
    """Run each network alone and the mixed paths, which share its maps up to where they change.

    Args:
        student: in training mode.
        teacher: its parameters frozen, as gradients of mixed paths run through it; in training
            mode, too, as the released code has it: it then normalises by the batch, and its running
            statistics move.
        bridges: of these two.
        images: (N, 3, H, W).
        paths: of `draw_paths`, different ones.

    Returns:
        What they say. Mixed paths normalise by the batch and move no running statistics.
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
    """Batch norms in training normalise by the batch, and leave their running statistics alone.

    The released code keeps statistics of their own for mixed paths, which nothing ever reads.
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

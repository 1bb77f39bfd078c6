"""Bridges of FCFD (Liu et al., ICLR 2023) between the stages of two networks.

N counts images, S stages; maps are (N, channels, H, W). Student and teacher are staged networks:
`num_stages` is S, `stage(k, x)` computes the map of stage k from that of stage k - 1 (for k = 0
from the images), `head(x)` computes the logits from the last map, and `emits` is "after_activation"
where the maps are outputs of an activation, else "before_activation".
"""

import copy

import torch
from torch import Tensor, nn

from .batch_norm import BatchNorm

TEACHER, STUDENT = 0, 1  # numbers in the keys of the released checkpoints


class FeatureBridges(nn.Module):
    """Convolutions that convert the maps of a stage between the networks, for all but the stem.

    They train with the student and are no part of it. State-dict keys are those of the released
    code, `bridges.{stage}.{to}.{from}.{0 convolution, 1 batch norm}`.

    A bridge that no path of a step crosses gets no gradient in that step, so that, as in the
    released code, neither momentum nor weight decay changes it. DistributedDataParallel needs
    find_unused_parameters=True for that. The last stage's bridge to the student is never used.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, images: Tensor):
        """
        Args:
            student, teacher: staged networks, which are not changed.
            images: (N, 3, H, W), to get the shapes of all maps; one image is enough.

        Raises:
            ValueError: the networks differ in their number of stages or have fewer than three, or
                the maps of a stage are neither of equal size nor twice as large on one side.
        """
        super().__init__()
        if student.num_stages != teacher.num_stages:
            raise ValueError(
                f"the student has {student.num_stages} stages and the teacher {teacher.num_stages}"
            )
        if student.num_stages < 3:
            raise ValueError(f"mixed paths need 3 stages, the networks have {student.num_stages}")
        shapes = {TEACHER: _map_shapes(teacher, images), STUDENT: _map_shapes(student, images)}
        emits = {TEACHER: teacher.emits, STUDENT: student.emits}
        self.bridges = nn.ModuleDict()
        for stage in range(1, student.num_stages):
            _refuse_other_ratios(stage, shapes[STUDENT][stage], shapes[TEACHER][stage])
            self.bridges[str(stage)] = nn.ModuleDict()
            for to, source in ((TEACHER, STUDENT), (STUDENT, TEACHER)):
                bridge = _bridge(shapes[source][stage], shapes[to][stage], emits[to])
                self.bridges[str(stage)][str(to)] = nn.ModuleDict({str(source): bridge})

    def forward(self, stage: int, x: Tensor, *, to: int) -> Tensor:
        """Convert a map of `stage` into a map of the same stage of the network `to`."""
        return self.bridges[str(stage)][str(to)][str(1 - to)](x)


def _refuse_other_ratios(stage: int, student: torch.Size, teacher: torch.Size) -> None:
    sizes = {tuple(student[2:]): "student", tuple(teacher[2:]): "teacher"}
    small, large = min(sizes), max(sizes)
    if small != large and tuple(2 * n for n in small) != large:
        raise ValueError(
            f"stage {stage}: the {sizes[large]}'s map is {large[0]} x {large[1]} and the "
            f"{sizes[small]}'s {small[0]} x {small[1]}; sizes must be equal or differ by a factor "
            "of 2"
        )


def _bridge(source: torch.Size, target: torch.Size, emits: str) -> nn.Sequential:
    """Build the layers from a map (N, channels, H, W) to another of the shape `target`.

    Args:
        emits: "after_activation" appends an activation, as the target network's maps have one.
    """
    channels = source[1], target[1]
    if source[2] < target[2]:
        convolution = nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
    else:
        halves = source[2] > target[2]
        convolution = nn.Conv2d(*channels, 3, 2 if halves else 1, padding=1, bias=halves)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    activation = [nn.LeakyReLU(0.1)] if emits == "after_activation" else []
    return nn.Sequential(convolution, BatchNorm(target[1]), *activation)


@torch.no_grad()
def _map_shapes(network: nn.Module, images: Tensor) -> list[torch.Size]:
    # On a copy, so that mode and running statistics of the network stay as they are.
    return [x.shape for x in pure_maps(copy.deepcopy(network).eval(), images)]


def pure_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Compute the map of each stage of one network, without bridges."""
    maps = [images]
    for stage in range(network.num_stages):
        maps.append(network.stage(stage, maps[-1]))
    return maps[1:]

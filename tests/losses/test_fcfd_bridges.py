import math
import re

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from classification.models import build_classifier
from eakd_det.losses import FeatureBridges, fcfd_loss, run_paths
from eakd_det.losses.fcfd_bridges import STUDENT, TEACHER, pure_maps
from eakd_det.losses.fcfd_paths import MixedPath, mixed_paths

from .staged import Staged, make_images, make_pair

SMALL, LARGE = [1, 2, 2, 2], [1, 1, 2, 2]  # strides
EMITS = ["after_activation", "before_activation"]


def make_bridges(student_strides, teacher_strides, image_size=(8, 8), **emits):
    student = Staged([3, 4, 5, 6], strides=student_strides, emits=emits.get("student", EMITS[0]))
    teacher = Staged([7, 8, 9, 10], strides=teacher_strides, emits=emits.get("teacher", EMITS[0]))
    return student, teacher, FeatureBridges(student, teacher, torch.zeros(1, 3, *image_size))


@pytest.mark.parametrize("strides", [(SMALL, SMALL), (SMALL, LARGE), (LARGE, SMALL)])
@pytest.mark.parametrize("image_size", [(8, 8), (16, 8)])
def test_leads_into_the_other_space(strides, image_size):
    student, teacher, bridges = make_bridges(*strides, image_size)
    images = torch.randn(2, 3, *image_size)
    student_maps, teacher_maps = pure_maps(student, images), pure_maps(teacher, images)
    for k in (1, 2, 3):
        assert bridges(k, student_maps[k], to=TEACHER).shape == teacher_maps[k].shape
        assert bridges(k, teacher_maps[k], to=STUDENT).shape == student_maps[k].shape


@pytest.mark.parametrize("student", EMITS)
@pytest.mark.parametrize("teacher", EMITS)
def test_ends_as_the_network_it_leads_into(student, teacher):
    _, _, bridges = make_bridges(SMALL, SMALL, student=student, teacher=teacher)
    for stage in bridges.bridges.values():
        for to, emits in ((TEACHER, teacher), (STUDENT, student)):
            activations = list(stage[str(to)][str(1 - to)])[2:]
            expected = ["LeakyReLU(negative_slope=0.1)"] if emits == EMITS[0] else []
            assert [str(x) for x in activations] == expected


def test_initialisation():
    torch.manual_seed(0)
    student, teacher = (Staged([3, 60, 60, 60], strides=x) for x in (SMALL, LARGE))
    bridges = FeatureBridges(student, teacher, make_images(1, dtype=torch.float32)).bridges
    grows, halves = bridges["1"]["0"]["1"], bridges["1"]["1"]["0"]
    keeps = FeatureBridges(student, student, make_images(1, dtype=torch.float32)).bridges["2"]
    for convolution in (halves[0], keeps["0"]["1"][0]):
        assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / 540), rel=0.02)
    assert halves[0].bias is not None
    assert grows[0].bias is not None
    assert keeps["0"]["1"][0].bias is None
    # torch's own for a transposed convolution: uniform within 1 / sqrt(fan).
    assert grows[0].weight.abs().max().item() == pytest.approx(1 / math.sqrt(960), rel=0.01)
    assert (grows[1].weight == 1).all()
    assert not grows[1].bias.any()


def test_networks_stay_as_they_are():
    student, teacher = Staged([3, 4, 5, 6]), Staged([3, 4, 5, 6]).eval()
    before = [{k: x.clone() for k, x in n.state_dict().items()} for n in (student, teacher)]
    FeatureBridges(student, teacher, make_images(2, dtype=torch.float32))
    for network, state in zip((student, teacher), before, strict=True):
        assert all(torch.equal(x, state[k]) for k, x in network.state_dict().items())
    assert student.stages[0].training
    assert not teacher.stages[0].training


def test_refuses_what_does_not_match():
    with pytest.raises(
        ValueError, match="stage 1: the student's map is 8 x 8 and the teacher's 3 x 3"
    ):
        make_bridges(LARGE, [1, 3, 1, 1])
    with pytest.raises(
        ValueError, match="stage 2: the teacher's map is 8 x 4 and the student's 2 x 1"
    ):
        make_bridges([1, 2, 2, 2], [1, 1, 1, 1], (8, 4))
    images = make_images(1, dtype=torch.float32)
    with pytest.raises(ValueError, match="the student has 4 stages and the teacher 5"):
        FeatureBridges(Staged([3] * 4), Staged([3] * 5), images)
    with pytest.raises(ValueError, match="need 3 stages, the networks have 2"):
        FeatureBridges(Staged([3] * 2), Staged([3] * 2), images)


PUBLISHED = [
    *("resnet8x4 resnet32x4", "wrn_16_2 wrn_40_2", "wrn_40_1 wrn_40_2", "wrn_16_2 wrn_28_4"),
    *("resnet20 resnet56", "vgg8 vgg13", "MobileNetV2 vgg13", "MobileNetV2 ResNet50"),
    *("ShuffleNetV1 resnet32x4", "ShuffleNetV1 wrn_40_2", "ShuffleNetV2 resnet32x4"),
    *("imagenet_resnet18 imagenet_resnet34", "imagenet_mobilenetv1 imagenet_resnet50"),
]


@pytest.mark.parametrize("pair", PUBLISHED)
def test_published_pairs_fit(pair):
    torch.manual_seed(0)
    student, teacher = (build_classifier(name, 10).eval() for name in pair.split())
    images = torch.randn(1, 3, 64 if pair.startswith("imagenet") else 32, 64)[..., :64]
    images = images if pair.startswith("imagenet") else images[..., :32]
    bridges = FeatureBridges(student, teacher, images).eval()
    with torch.no_grad():
        outputs = run_paths(student, teacher, bridges, images, mixed_paths(student.num_stages))
    for maps, target in zip(outputs.bridged_maps, outputs.teacher_maps, strict=True):
        assert all(x.shape == target.shape for x in maps)


class Step(nn.Module):
    """Module that DistributedDataParallel wraps, without the teacher."""

    def __init__(self):
        super().__init__()
        self.student, teacher, self.bridges = make_pair()
        self.teacher = [teacher]

    def forward(self, images, paths):
        outputs = run_paths(self.student, *self.teacher, self.bridges, images, paths)
        return sum(fcfd_loss(outputs).values())


def test_distributed_data_parallel(tmp_path):
    """Bridges that a step does not cross keep no gradient, and no step waits for them."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        plain = Step()
        parallel = DistributedDataParallel(Step(), find_unused_parameters=True)
        for path in (MixedPath(1, STUDENT), MixedPath(2, TEACHER), MixedPath(2, STUDENT)):
            for step in (plain, parallel):
                step.zero_grad()
                step(make_images(), [path]).backward()
            for (name, p), q in zip(
                plain.named_parameters(), parallel.module.parameters(), strict=True
            ):
                to_student = re.match(r"bridges\.bridges\.(\d)\.1\.", name)
                is_idle = to_student and MixedPath(int(to_student[1]), STUDENT) != path
                assert (p.grad is None) == (q.grad is None) == bool(is_idle), name
                assert is_idle or torch.equal(p.grad, q.grad)
    finally:
        torch.distributed.destroy_process_group()

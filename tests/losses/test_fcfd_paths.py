import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from classification.models import build_classifier
from eakd_det.losses import FeatureBridges, draw_paths, entropy_weight, fcfd_loss, run_paths
from eakd_det.losses.fcfd_bridges import STUDENT, TEACHER, pure_maps
from eakd_det.losses.fcfd_paths import MixedPath, mixed_paths

from .contract import HALVES
from .staged import Staged, make_images, make_pair

EMITS = ["after_activation", "before_activation"]


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (3, "001 110"),
        (4, "0011 0001 1100 1110"),
        (5, "00111 00011 00001 11000 11100 11110"),
    ],
)
def test_candidates_are_the_released_ones(stages, expected):
    networks = [
        "".join(str(p.to if k > p.switch else 1 - p.to) for k in range(stages))
        for p in mixed_paths(stages)
    ]
    assert networks == expected.split()


def test_draw_is_of_two_different_paths_and_comes_from_the_seed_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    draws = [draw_paths(4, seed) for seed in range(3000)]
    assert torch.equal(state, torch.get_rng_state())
    assert draws == [draw_paths(4, seed) for seed in range(3000)]
    pairs = Counter(frozenset(draw) for draw in draws)
    assert all(len(pair) == 2 for pair in pairs)
    assert len(pairs) == 6
    assert all(abs(number - 500) < 5 * 20 for number in pairs.values())


def along(student, teacher, bridges, images, path):
    """Logits of one path, and its maps after it has changed, run from the images on."""
    student, teacher, bridges = (copy.deepcopy(x) for x in (student, teacher, bridges))
    first, last = (teacher, student) if path.to == STUDENT else (student, teacher)
    x, maps = images, []
    for stage in range(student.num_stages):
        x = first.stage(stage, x) if stage <= path.switch else last.stage(stage, x)
        if stage == path.switch:
            x = bridges.bridges[str(stage)][str(path.to)][str(1 - path.to)](x)
        if stage >= path.switch:
            maps.append(x)
    return last.head(x), maps


@pytest.mark.parametrize("stages", [3, 4, 5, 6])
@pytest.mark.parametrize("emits", EMITS)
def test_shared_maps_are_those_of_whole_paths(stages, emits):
    student, teacher, bridges = make_pair(stages, emits=emits)
    images, paths = make_images(size=16), mixed_paths(stages)
    expected = [along(student, teacher, bridges, images, path) for path in paths]
    outputs = run_paths(student, teacher, bridges, images, paths)
    for logits, (whole, _) in zip(outputs.mixed_logits, expected, strict=True):
        assert_close(logits, whole)
    to_teacher = [
        (p, maps) for p, (_, maps) in zip(paths, expected, strict=True) if p.to == TEACHER
    ]
    for k in range(1, stages):
        bridged, *mixed = outputs.bridged_maps[k - 1]
        whole = [maps[k - p.switch] for p, maps in to_teacher if p.switch < k]
        assert_close(mixed, whole)
        crossing = [maps[0] for p, maps in to_teacher if p.switch == k]
        assert all(torch.equal(bridged, x) for x in crossing)


def test_networks_alone_are_as_without_mixed_paths():
    """Their outputs, and their running statistics after the step; nothing is added to them."""
    student, teacher, bridges = make_pair()
    alone = [copy.deepcopy(x) for x in (student, teacher)]
    maps = [pure_maps(x, make_images()) for x in alone]
    outputs = run_paths(student, teacher, bridges, make_images(), mixed_paths(4))
    assert torch.equal(outputs.student_logits, alone[0].head(maps[0][-1]))
    assert torch.equal(outputs.teacher_logits, alone[1].head(maps[1][-1]))
    for network, expected in zip((student, teacher), alone, strict=True):
        state, states = network.state_dict(), expected.state_dict()
        assert state.keys() == states.keys()
        assert all(torch.equal(state[k], states[k]) for k in state)
        assert network.stages[0][1].num_batches_tracked == 1


def test_statistics_move_again_after_a_path_that_failed():
    student, teacher, bridges = make_pair()
    with pytest.raises(IndexError):
        run_paths(student, teacher, bridges, make_images(), [MixedPath(9, TEACHER)])
    student.stage(0, make_images())
    assert student.stages[0][1].num_batches_tracked == 2


def test_frozen_teacher_passes_gradients_on_and_gets_none():
    student, teacher, bridges = make_pair()
    outputs = run_paths(student, teacher, bridges, make_images(), [MixedPath(2, TEACHER)])
    outputs.mixed_logits[0].square().sum().backward()
    assert student.stages[0][0].weight.grad.any()
    assert student.stages[3][0].weight.grad is None
    assert all(p.grad is None for p in teacher.parameters())
    assert not outputs.teacher_logits.requires_grad


def test_path_to_the_student_trains_its_end_and_the_bridge():
    student, teacher, bridges = make_pair()
    outputs = run_paths(student, teacher, bridges, make_images(), [MixedPath(1, STUDENT)])
    outputs.mixed_logits[0].square().sum().backward()
    assert student.stages[1][0].weight.grad is None
    assert student.stages[2][0].weight.grad.any()
    trained = {name for name, p in bridges.named_parameters() if p.grad is not None}
    assert trained == {f"bridges.1.1.0.{name}" for name in ("0.weight", "1.weight", "1.bias")}


def test_teacher_in_eval_mode_takes_its_running_statistics():
    student, teacher, bridges = make_pair()
    teacher.eval()
    before = copy.deepcopy(teacher.state_dict())
    images = make_images()
    outputs = run_paths(student, teacher, bridges, images, [MixedPath(1, TEACHER)])
    assert all(torch.equal(x, before[k]) for k, x in teacher.state_dict().items())
    one = run_paths(student.eval(), teacher, bridges.eval(), images[:1], [MixedPath(1, TEACHER)])
    assert_close(one.teacher_logits, outputs.teacher_logits[:1])


def test_one_image_on_a_map_of_one_pixel():
    """Bridges train on a single value a channel if the networks do."""
    student, teacher, bridges = make_pair(strides=[1, 2, 2, 2], norm=nn.Identity)
    outputs = run_paths(student, teacher, bridges, make_images(1, 8), mixed_paths(4))
    assert outputs.teacher_maps[-1].shape[2:] == (1, 1)
    sum(fcfd_loss(outputs).values()).backward()
    assert all(p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype):
    student, teacher, bridges = make_pair(dtype=torch.float32)
    images = 50 * make_images(dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        outputs = run_paths(student, teacher, bridges, images, mixed_paths(4))
        weight = entropy_weight(outputs.student_logits, outputs.teacher_logits)
        losses = fcfd_loss(outputs, weight=weight)
    assert outputs.student_logits.dtype == dtype
    assert all(x.dtype == torch.float32 and x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    for p in student.parameters():
        assert p.grad.isfinite().all()
        assert p.grad.any()


@pytest.mark.parametrize("names", ["vgg8 MobileNetV2", "MobileNetV2 vgg8"])
def test_five_stages_and_maps_of_two_sizes(names):
    torch.manual_seed(0)
    student, teacher = (build_classifier(name, 10) for name in names.split())
    teacher.requires_grad_(False)
    images = make_images(2, 32, torch.float32)
    bridges = FeatureBridges(student, teacher, images[:1])
    outputs = run_paths(student, teacher, bridges, images, draw_paths(5, seed=0))
    sum(fcfd_loss(outputs).values()).backward()
    assert all(p.grad.isfinite().all() for p in student.parameters())


def test_any_network_of_stages_will_do():
    """Without batch norm, and with a batch norm that keeps no statistics."""
    teacher = Staged([4, 5, 6, 7], norm=lambda width: nn.BatchNorm2d(width, affine=False))
    student = Staged(
        [3, 4, 5, 6], norm=lambda width: nn.BatchNorm2d(width, track_running_stats=False)
    )
    images = make_images(dtype=torch.float32)
    bridges = FeatureBridges(student, teacher.requires_grad_(False), images)
    run_paths(student, teacher, bridges, images, mixed_paths(4))
    assert not student.stages[0][1].track_running_stats
    assert teacher.stages[0][1].track_running_stats

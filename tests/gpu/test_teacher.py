"""A detector's frozen teacher: prepared and unprepared, its precisions, compiled."""

import pytest
import torch
from detectron2.structures import Boxes

from eakd_det.modeling.teacher import build_teacher
from tests.conftest import replace_teacher

from .detectors import first_step, take_all_samples

R18 = ["MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]


@pytest.fixture
def cfg(distill_cfg, device):
    distill_cfg.MODEL.DEVICE = str(device)
    return distill_cfg


def _outputs(teacher, batch):
    """Return the teacher's feature maps and its logits of two boxes an image."""
    features = teacher.features(batch, "RGB")
    boxes = torch.tensor([[1.5, 2, 41, 50], [30, 20, 90, 77]], device=teacher.device)
    return features, teacher.roi_outputs(features, [Boxes(boxes), Boxes(boxes + 1)])[0]


def _prepared(cfg, batch, **options):
    """Return its outputs before and after it is prepared."""
    for key, value in options.items():
        cfg.TEACHER[key] = value
    teacher = build_teacher(cfg)
    assert teacher.device.type == torch.device(cfg.MODEL.DEVICE).type
    before = _outputs(teacher, batch)
    teacher.prepare()
    return before, _outputs(teacher, batch)


def test_the_logits_are_those_of_the_cpu(cfg, batch, full_float32):
    ours = _prepared(cfg, batch)[1]
    cfg.MODEL.DEVICE = "cpu"
    _, logits = _prepared(cfg, batch)[1]
    torch.testing.assert_close(ours[1].cpu(), logits, atol=1e-3, rtol=1e-3)


def test_prepared_gives_the_same(cfg, batch, full_float32):
    (features, logits), (fast_features, fast_logits) = _prepared(cfg, batch)
    torch.testing.assert_close(fast_logits, logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fast_features, features, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("precision", "under_autocast"),
    [
        ("", torch.bfloat16),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("amp", torch.float16),
    ],
)
def test_precisions(cfg, batch, device, precision, under_autocast, full_float32):
    """Each, without and under the student's autocast in bfloat16."""
    cfg.SOLVER.AMP.DTYPE = "float16"
    (_, exact), _ = _prepared(cfg, batch, PRECISION=precision)
    teacher = build_teacher(cfg)
    teacher.prepare()
    for autocast, dtype in [
        (False, torch.float32 if precision == "" else under_autocast),
        (True, under_autocast),
    ]:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            features, logits = _outputs(teacher, batch)
        assert features["p2"].dtype == logits.dtype == dtype
        assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_compiled_gives_the_same(cfg, teacher_cfg, batch, tmp_path, full_float32):
    """Two sizes of images are padded to one shape."""
    replace_teacher(cfg, teacher_cfg, R18, tmp_path)
    cfg.TEACHER.COMPILE = 128
    teacher = build_teacher(cfg)
    smaller = [{"image": x["image"][:, :90, :90]} for x in batch]
    exact = [_outputs(teacher, images) for images in (batch, smaller)]
    teacher.prepare()
    for images, (features, logits) in zip((batch, smaller), exact, strict=True):
        ours, our_logits = _outputs(teacher, images)
        torch.testing.assert_close(our_logits, logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(ours, features, atol=1e-2, rtol=1e-2)


def test_a_step_does_not_depend_on_the_memory_format(cfg, batch, device, storage, full_float32):
    """Student and teacher in channels_last give the losses and gradients of contiguous ones."""
    cfg.DISTILL.METHODS = ("KD", "DKD", "REVIEWKD")
    take_all_samples(cfg)
    losses, gradients, proposals = first_step(cfg, batch, device)
    ours, our_gradients, _ = first_step(cfg, batch, device, proposals, torch.channels_last)
    assert ours == pytest.approx(losses, rel=1e-3, abs=1e-5)
    name = "backbone.fpn_output2.weight"
    assert (our_gradients[name] - gradients[name]).norm() < 1e-2 * gradients[name].norm()

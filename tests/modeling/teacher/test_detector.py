import copy

import pytest
import torch
from detectron2.structures import Boxes

from eakd_det.modeling.teacher import build_teacher
from eakd_det.utils.errors import UserError
from tests.rerun import Rerun


@pytest.fixture
def teacher(distill_cfg):
    return build_teacher(distill_cfg)


def _outputs(teacher, batch):
    features = teacher.features(batch, "RGB")
    boxes = [Boxes(torch.tensor([[1.5, 2, 41, 50], [30, 20, 90, 77]]) + i) for i in range(2)]
    return features, teacher.roi_outputs(features, boxes)[0]


def _channels_last(teacher):
    weight = teacher.model.backbone.bottom_up.res2[0].conv2.weight
    return weight.is_contiguous(memory_format=torch.channels_last)


def test_prepared_gives_the_same(teacher, batch):
    features, logits = _outputs(teacher, batch)
    assert not teacher.is_prepared and not _channels_last(teacher)
    teacher.prepare()
    names = [name for name, _ in teacher.model.named_buffers() if "norm" in name]
    assert teacher.is_prepared and _channels_last(teacher) and not names
    fast_features, fast_logits = _outputs(teacher, batch)
    torch.testing.assert_close(fast_logits, logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast_features, features, atol=1e-4, rtol=1e-4)


def test_levels_for_the_rpn_alone_are_left_out(distill_cfg, batch):
    for keep in (True, False):
        teacher = build_teacher(distill_cfg)
        teacher.prepare(keep_levels=keep)
        assert ("p6" in teacher.features(batch, "RGB")) == keep


def test_not_fast(distill_cfg, batch):
    distill_cfg.TEACHER.FAST = False
    teacher = build_teacher(distill_cfg)
    assert teacher.is_prepared
    before = _outputs(teacher, batch)[1]
    teacher.prepare()
    assert not _channels_last(teacher)
    assert torch.equal(_outputs(teacher, batch)[1], before)


@pytest.mark.parametrize(("precision", "fast"), [("bfloat16", True), ("float16", False)])
def test_halves(distill_cfg, batch, precision, fast):
    distill_cfg.TEACHER.PRECISION, distill_cfg.TEACHER.FAST = precision, fast
    teacher = build_teacher(distill_cfg)
    exact = _outputs(teacher, batch)[1]
    teacher.prepare()
    features, logits = _outputs(teacher, batch)
    dtype = getattr(torch, precision)
    assert features["p2"].dtype == logits.dtype == dtype
    assert teacher.model.pixel_mean.dtype == torch.float32
    assert 0 < (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("precision", "expected"), [("", "bfloat16"), ("float32", "float32"), ("amp", "float16")]
)
def test_precision_under_the_students_autocast(distill_cfg, batch, precision, expected):
    distill_cfg.TEACHER.PRECISION, distill_cfg.SOLVER.AMP.DTYPE = precision, "float16"
    teacher = build_teacher(distill_cfg)
    teacher.prepare()
    with torch.autocast("cpu", torch.bfloat16):
        features, logits = _outputs(teacher, batch)
    assert features["p2"].dtype == logits.dtype == getattr(torch, expected)


def test_compiled(distill_cfg, batch, graphs):
    """Images get few shapes: here two shapes become one, which is compiled once."""
    distill_cfg.TEACHER.COMPILE = 128
    teacher, limit = build_teacher(distill_cfg), torch._dynamo.config.cache_size_limit
    exact = _outputs(teacher, batch)[1]
    smaller = [{"image": x["image"][:, :90, :90]} for x in batch]
    exact_smaller = teacher.features(smaller, "RGB")
    teacher.prepare()
    torch.testing.assert_close(_outputs(teacher, batch)[1], exact, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 1
    features = teacher.features(smaller, "RGB")
    torch.testing.assert_close(features, exact_smaller, atol=1e-4, rtol=1e-4)
    assert features["p2"].shape[-2:] == (24, 24)
    assert len(graphs) == 1
    assert torch._dynamo.config.cache_size_limit == limit, "the rest of the process keeps its own"


def test_compile_must_fit_the_strides(distill_cfg):
    distill_cfg.TEACHER.COMPILE = 100
    with pytest.raises(ValueError, match="TEACHER.COMPILE: 100 must be a multiple of 64"):
        build_teacher(distill_cfg)


def test_compiled_with_graphs(distill_cfg, batch, graphs):
    """One graph for each padded shape; features of earlier batches stay."""
    distill_cfg.TEACHER.COMPILE = 128
    smaller = [{"image": x["image"][:, :90, :90]} for x in batch]
    inputs = [batch, smaller[:1], smaller, batch]
    plain = build_teacher(distill_cfg)
    plain.prepare()
    expected = [plain.features(x, "RGB") for x in inputs]
    distill_cfg.TEACHER.CUDA_GRAPHS = True
    teacher = build_teacher(distill_cfg)
    teacher.prepare()
    assert teacher._backbone.capture is None, "on a GPU alone"
    teacher._backbone.capture = Rerun
    features = [teacher.features(x, "RGB") for x in inputs]
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    assert teacher._backbone._graphs.capture.captures == 2
    assert features[1]["p2"].stride() == expected[1]["p2"].clone().stride()
    assert copy.deepcopy(teacher)._backbone._graphs is None


def test_graphs_need_a_compiled_backbone(distill_cfg):
    distill_cfg.TEACHER.CUDA_GRAPHS = True
    with pytest.raises(UserError, match="TEACHER.CUDA_GRAPHS needs .* TEACHER.COMPILE to 128"):
        build_teacher(distill_cfg)


def test_is_frozen(teacher, batch):
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert not any(f.requires_grad for f in teacher.features(batch, "RGB").values())

from pathlib import Path

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import BitMasks, Boxes

from eakd_det.config.defaults import stock_config
from eakd_det.config.merge import load_config
from eakd_det.engine.student_config import write_student_config
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.modeling.poolers import (
    SparseROIAlign,
    assign_alike,
    pool_as_configured,
    pool_assigned,
    use_sparse_pooling,
)
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError
from tests.reads import Operators, reads

ROOT = Path(__file__).parents[2]
MASK = ["MODEL.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"]
MASK += ["MODEL.ROI_MASK_HEAD.NUM_CONV", 1, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8]


def _level_poolers(model):
    return [p for m in model.modules() if isinstance(m, ROIPooler) for p in m.level_poolers]


def _build(cfg, seed=0):
    """As the trainer builds it: student and teacher."""
    torch.manual_seed(seed)
    return DistillTrainer.build_model(cfg)


def _pyramid_pooler(output_size=7, sampling_ratio=0, pooler_type="ROIAlignV2", **options):
    scales = [0.25, 0.125, 0.0625, 0.03125]
    return ROIPooler(output_size, scales, sampling_ratio, pooler_type, **options)


def _pyramid():
    """Return maps of four levels, and boxes of two images, of which none is on the last level."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(96, 128), (48, 64), (24, 32), (12, 16)]
    features = [torch.randn(2, 8, *size, generator=generator) for size in sizes]
    corners = torch.rand(2, 60, 2, generator=generator) * torch.tensor([300.0, 200])
    extents = torch.rand(2, 60, 2, generator=generator) ** 3 * 250
    return features, [
        Boxes(torch.cat([c, c + e], dim=1)) for c, e in zip(corners, extents, strict=True)
    ]


@pytest.mark.parametrize("pooler_type", ["ROIAlignV2", "ROIAlign"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_pyramid(pooler_type, sampling_ratio):
    """A pooler of several levels, one of which no box is on; value and gradient."""
    pooler = _pyramid_pooler(sampling_ratio=sampling_ratio, pooler_type=pooler_type)
    features, boxes = _pyramid()
    results = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in features]
        pooled = pooler(leaves, boxes)
        results.append([pooled, *torch.autograd.grad(pooled.square().sum(), leaves)])
        use_sparse_pooling(pooler)
    assert not results[0][-1].any()
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("are_boxes", [True, False])
def test_a_teacher_pools_what_the_student_has_assigned(are_boxes):
    """Bit for bit what the stock pooler returns, with another size; nothing is read."""
    student, teacher = _pyramid_pooler(), _pyramid_pooler(output_size=5, sampling_ratio=2)
    assert assign_alike(student, teacher)
    features, boxes = _pyramid()
    boxes = boxes if are_boxes else [x[:0] for x in boxes]
    levels = {str(i): p for i, p in enumerate(student.level_poolers)}
    with record(**levels) as calls:
        student(features, boxes)
    level_boxes = [calls[name][0].args[1] for name in levels]
    maps = [x.flip(1) for x in features]
    more = (torch.ops.aten.nonzero, torch.ops.aten.repeat_interleave)
    with reads() as names, Operators(*more) as others:
        pooled = pool_assigned(teacher, maps, boxes, level_boxes)
    assert not names and not others.seen
    assert torch.equal(pooled, teacher(maps, boxes))
    assert len(pooled) == (120 if are_boxes else 0)


def test_poolers_that_assign_alike():
    pooler = _pyramid_pooler()
    assert not assign_alike(pooler, _pyramid_pooler(canonical_box_size=112))
    assert not assign_alike(pooler, ROIPooler(7, [0.25, 0.125], 0, "ROIAlignV2"))
    assert not assign_alike(torch.nn.Identity(), torch.nn.Identity())


def test_half_precisions_are_the_stock_layers():
    """Boxes are rounded to the features' dtype there as well."""
    features, rois = torch.randn(1, 4, 30, 40).half(), torch.tensor([[0, 3.3, 5.7, 60.3, 80.9]])
    options = {"output_size": (7, 7), "spatial_scale": 0.25, "sampling_ratio": 0}
    bins = SparseROIAlign(**options)(features, rois)
    assert bins.dtype == torch.float16
    expected = ROIAlign(**options)(features.float(), rois.half().float())
    torch.testing.assert_close(bins, expected.half(), atol=1e-3, rtol=1e-3)


def test_other_devices_use_the_stock_layer(monkeypatch):
    def refuse(*_):
        raise AssertionError("not on this device")

    monkeypatch.setattr("eakd_det.modeling.poolers.sparse_roi_align", refuse)
    layer = SparseROIAlign((7, 7), 0.25, 0)
    assert layer(torch.empty(2, 4, 30, 40, device="meta"), torch.empty(9, 5)).is_meta
    with pytest.raises(AssertionError, match="not on this device"):
        layer(torch.randn(2, 4, 30, 40), torch.rand(9, 5))


class _OnAnotherDevice(torch.nn.Module):
    """Looks like a detector on a GPU."""

    def __init__(self, cfg):
        super().__init__()
        self.model = build_model(cfg)
        self.device = torch.device("cuda")


def test_a_model_on_another_device_is_left_alone(distill_cfg):
    model = _OnAnotherDevice(stock_config(distill_cfg))
    distill_cfg.MODEL.ROI_HEADS.POOLER_BACKEND = "sparse"
    pool_as_configured(distill_cfg, model)
    assert {type(p) for p in _level_poolers(model)} == {ROIAlign}


@pytest.mark.parametrize("methods", [(), ("DKD",)])
@pytest.mark.parametrize(
    ("backend", "kind"), [("torchvision", ROIAlign), ("sparse", SparseROIAlign)]
)
def test_key_decides_for_student_and_teacher(distill_cfg, backend, kind, methods):
    cfg = distill_cfg
    assert cfg.MODEL.ROI_HEADS.POOLER_BACKEND == "torchvision", "the default equals stock"
    cfg.merge_from_list([*MASK, "MODEL.ROI_HEADS.POOLER_BACKEND", backend])
    cfg.DISTILL.METHODS = methods
    model = _build(cfg)
    assert [type(p) for p in _level_poolers(model)] == [kind] * 8  # of boxes and of masks
    if methods:
        assert [type(p) for p in _level_poolers(model.teacher.model)] == [kind] * 4
    stock = stock_config(cfg)
    assert "POOLER_BACKEND" not in stock.MODEL.ROI_HEADS
    assert list(model.state_dict()) == list(build_model(stock).state_dict())


def test_other_poolers_are_left_alone(distill_cfg):
    distill_cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIPool"
    model = build_model(stock_config(distill_cfg))
    use_sparse_pooling(model)
    assert not any(isinstance(p, ROIAlign) for p in _level_poolers(model))


@pytest.mark.parametrize("has_masks", [False, True])
def test_a_step_gives_the_same(distill_cfg, teacher_cfg, batch, storage, tmp_path, has_masks):
    """Losses and gradients of a whole step of EA-DKD, with the same samples in it."""
    cfg = distill_cfg
    if has_masks:
        cfg.merge_from_list(MASK)
        for x in batch:
            masks = torch.zeros(len(x["instances"]), *x["instances"].image_size, dtype=torch.bool)
            masks[:, 20:50, 20:50] = True
            x["instances"].gt_masks = BitMasks(masks)
    losses, gradients = {}, {}
    for backend in ("torchvision", "sparse"):
        cfg.MODEL.ROI_HEADS.POOLER_BACKEND = backend
        model = _build(cfg)
        torch.manual_seed(1)
        losses[backend] = model(batch)
        sum(losses[backend].values()).backward()
        gradients[backend] = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    torch.testing.assert_close(losses["sparse"], losses["torchvision"], atol=0, rtol=1e-5)
    for name, expected in gradients["torchvision"].items():
        error = (gradients["sparse"][name] - expected).norm()
        assert error <= 1e-4 * expected.norm(), name


def test_wrong_value_is_told(tmp_path):
    (tmp_path / "run.yaml").write_text("VERSION: 2")
    options = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.POOLER_BACKEND"]
    cfg = load_config(str(tmp_path / "run.yaml"), [*options, "dense"])
    with pytest.raises(UserError, match="POOLER_BACKEND: 'dense' is unknown; choose from torchvi"):
        pool_as_configured(cfg)
    with pytest.raises(UserError, match="did you mean MODEL.ROI_HEADS.POOLER_BACKEND?"):
        load_config(str(tmp_path / "run.yaml"), ["MODEL.ROI_HEADS.POOLER_BACKEN", "sparse"])


def test_a_run_with_it_leaves_a_plain_student(tmp_path):
    path = str(ROOT / "configs" / "Digits-Detection" / "Student-R18.yaml")
    cfg = load_config(path, ["MODEL.ROI_HEADS.POOLER_BACKEND", "sparse"])
    cfg.OUTPUT_DIR = str(tmp_path)
    write_student_config(cfg)
    assert "POOLER_BACKEND" not in (tmp_path / "student.yaml").read_text()

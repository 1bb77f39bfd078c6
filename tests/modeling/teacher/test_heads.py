import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes

from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher import build_teacher


def _stock_logits(teacher_cfg, teacher_files, images, boxes):
    """Return the logits of the teacher in stock code, for images in its own channel order."""
    model = build_model(teacher_cfg).eval()
    DetectionCheckpointer(model).load(teacher_files[1])
    with torch.no_grad():
        batched = model.preprocess_image([{"image": image} for image in images])
        features = model.backbone(batched.tensor)
        heads = model.roi_heads
        pooled = heads.box_pooler([features[name] for name in heads.box_in_features], boxes)
        return heads.box_predictor(heads.box_head(pooled))[0]


@pytest.mark.parametrize("student_format", ["RGB", "BGR"])
def test_logits_equal_stock(distill_cfg, teacher_cfg, teacher_files, batch, student_format):
    teacher = build_teacher(distill_cfg)
    assert teacher.input_format == "BGR"
    boxes = [Boxes(torch.rand(7, 4) * 40 + torch.tensor([0, 0, 40, 40])) for _ in batch]
    logits, _ = teacher.roi_outputs(teacher.features(batch, student_format), boxes)
    flipped = [x["image"].flip(0) for x in batch]
    same = [x["image"] for x in batch]
    right, wrong = (flipped, same) if student_format == "RGB" else (same, flipped)
    expected = _stock_logits(teacher_cfg, teacher_files, right, boxes)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    mistaken = _stock_logits(teacher_cfg, teacher_files, wrong, boxes)
    assert (logits - mistaken).abs().max() > 0.01, "this test could not see swapped channels"


def test_rois_are_not_rounded(distill_cfg, batch):
    """In bfloat16 the box 129.4 would become 129, and 300.5 become 300."""
    distill_cfg.TEACHER.PRECISION = "bfloat16"
    teacher = build_teacher(distill_cfg)
    teacher.prepare()
    with record(pooler=teacher.model.roi_heads.box_pooler.level_poolers[0]) as calls:
        teacher.roi_outputs(
            teacher.features(batch, "RGB"), [Boxes(torch.tensor([[9.0, 9, 30.4, 129.4]]))] * 2
        )
    maps, rois = calls["pooler"][0].args
    assert maps.dtype == torch.float32 and rois[0, 4].item() == pytest.approx(129.4)


def test_no_roi_at_all(distill_cfg, batch):
    teacher = build_teacher(distill_cfg)
    empty = [Boxes(torch.zeros(0, 4)) for _ in batch]
    logits, deltas = teacher.roi_outputs(teacher.features(batch, "RGB"), empty)
    assert logits.shape == (0, 6) and deltas.shape == (0, 20)

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.structures import Boxes

from eakd_det.teacher import build_teacher


@pytest.fixture
def teacher(distill_cfg):
    return build_teacher(distill_cfg)


def _stock_logits(teacher_cfg, teacher_files, images, boxes):
    """The teacher alone, by stock code, on images in its own channel order."""
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
    logits = teacher.roi_logits(teacher.features(batch, student_format), boxes)
    flipped = [x["image"].flip(0) for x in batch]
    same = [x["image"] for x in batch]
    right, wrong = (flipped, same) if student_format == "RGB" else (same, flipped)
    expected = _stock_logits(teacher_cfg, teacher_files, right, boxes)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    mistaken = _stock_logits(teacher_cfg, teacher_files, wrong, boxes)
    assert (logits - mistaken).abs().max() > 0.01, "this test could not see swapped channels"


def test_is_frozen(teacher, batch):
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert not any(f.requires_grad for f in teacher.features(batch, "RGB").values())


def test_no_roi_at_all(teacher, batch):
    empty = [Boxes(torch.zeros(0, 4)) for _ in batch]
    assert teacher.roi_logits(teacher.features(batch, "RGB"), empty).shape == (0, 6)


def test_random_state_is_left_alone(distill_cfg):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_teacher(distill_cfg)
    assert torch.equal(torch.rand(3), expected)


def test_model_zoo_name(distill_cfg, tmp_path):
    distill_cfg.TEACHER.CONFIG_FILE = "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"
    torch.save({"model": {}}, tmp_path / "empty.pth")
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"missing: \d\d\d .*backbone\.bottom_up"):
        build_teacher(distill_cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("TEACHER.CONFIG_FILE", "", "TEACHER.CONFIG_FILE is empty"),
        ("TEACHER.WEIGHTS", "", "has no weights: set TEACHER.WEIGHTS"),
        ("TEACHER.CONFIG_FILE", "nowhere.yaml", "nowhere.yaml is neither a file nor"),
        ("TEACHER.WEIGHTS", "nowhere.pth", "TEACHER.WEIGHTS: nowhere.pth"),
    ],
)
def test_refused(distill_cfg, key, value, message):
    distill_cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        build_teacher(distill_cfg)


def test_weights_that_do_not_fit(distill_cfg, teacher_files, tmp_path):
    state = torch.load(teacher_files[1])["model"]
    state["extra.weight"] = torch.zeros(1)
    del state["roi_heads.box_head.fc1.weight"]
    state["roi_heads.box_head.fc1.bias"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "partial.pth")
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "partial.pth")
    with pytest.raises(ValueError, match="TEACHER.WEIGHTS does not fit") as error:
        build_teacher(distill_cfg)
    text = str(error.value)
    assert "missing: 1 (roi_heads.box_head.fc1.weight)" in text
    assert "unexpected: 1 (extra.weight)" in text
    assert "fc1.bias (3,) in the file, (32,) in the model" in text

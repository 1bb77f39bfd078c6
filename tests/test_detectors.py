import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from eakd_det.config import stock_config
from eakd_det.detectors import (
    check_datasets,
    load_student,
    load_teacher,
    num_classes,
    use_available_device,
)
from eakd_det.errors import UserError


@pytest.mark.parametrize("key", ["TRAIN", "TEST"])
def test_unknown_datasets(stock_cfg, key):
    stock_cfg.DATASETS[key] = ("coco_2017_val", "nowhere_val")
    with pytest.raises(UserError, match=rf"DATASETS\.{key}: there is no dataset 'nowhere_val'"):
        check_datasets(stock_cfg)
    stock_cfg.DATASETS[key] = ("coco_2017_val",)
    assert "coco_2017_val" in DatasetCatalog
    check_datasets(stock_cfg)


def test_number_of_classes(stock_cfg):
    assert num_classes(stock_cfg) == ("MODEL.ROI_HEADS.NUM_CLASSES", 5)


def test_number_of_classes_of_a_retinanet(retina_cfg):
    assert num_classes(retina_cfg) == ("MODEL.RETINANET.NUM_CLASSES", 10)


def test_the_teacher_as_a_detector(distill_cfg, teacher_files):
    cfg, model = load_teacher(distill_cfg)
    assert cfg.INPUT.FORMAT == "BGR"
    weights = torch.load(teacher_files[1], weights_only=True)["model"]
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)
    distill_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(UserError, match="The teacher has 5 classes and the student 3"):
        load_teacher(distill_cfg)


def test_the_student_as_a_detector(distill_cfg, tmp_path):
    state = build_model(stock_config(distill_cfg)).state_dict()
    torch.save({"model": state}, tmp_path / "student.pth")
    cfg, model = load_student(distill_cfg, str(tmp_path / "student.pth"))
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)


def test_device(stock_cfg, monkeypatch):
    stock_cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    use_available_device(stock_cfg)
    assert stock_cfg.MODEL.DEVICE == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    use_available_device(stock_cfg)
    assert stock_cfg.MODEL.DEVICE == "cpu"

import logging

import pytest
import torch
from torchvision.models import get_model, get_model_weights

from eakd_det.modeling.teacher import make_teacher
from eakd_det.modeling.teacher.torchvision_file import load_torchvision
from eakd_det.utils.errors import UserError
from tests.conftest import NUM_CLASSES
from tests.modeling.meta_arch.steps import first_and_last

NAME = "fasterrcnn_mobilenet_v3_large_fpn"
SOURCE = f"torchvision://{NAME}"


def _save(path, number, name=NAME, **rest):
    torch.manual_seed(1)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=number)
    with torch.no_grad():
        for layer in (model.roi_heads.box_predictor.cls_score,) if "rcnn" in name else ():
            layer.weight.mul_(20)  # logits that differ between ROIs
    torch.save({"model": model.state_dict(), **rest} if rest else model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A state_dict of as many classes as the student has, and background."""
    return _save(tmp_path_factory.mktemp("torchvision") / "teacher.pth", NUM_CLASSES + 1)


def test_the_file_has_the_number_of_classes(weights):
    model, names = load_torchvision(SOURCE, weights)
    assert model.roi_heads.num_classes == NUM_CLASSES and names == ()
    assert model.backbone.output_shape()["p5"].stride == 32


@pytest.mark.parametrize("with_background", [False, True])
def test_class_names_of_a_file(tmp_path, with_background):
    names = ["background"] * with_background + ["cat", "dog"]
    path = _save(tmp_path / "named.pth", 3, class_names=names)
    teacher = make_teacher(SOURCE, path)
    assert teacher.class_names == ("cat", "dog")
    assert teacher.input_format == "RGB" and teacher.model.roi_heads.num_classes == 2


def test_91_classes_are_coco_s(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        model, names = load_torchvision(SOURCE, _save(tmp_path / "coco.pth", 91))
    assert model.roi_heads.num_classes == len(names) == 80
    assert names[:2] == ("person", "bicycle") and "N/A" not in names
    assert "taken as those of torchvision's weights for COCO" in caplog.text
    assert "DEFAULT" in get_model_weights(NAME).__members__


def test_mistakes(weights, tmp_path):
    with pytest.raises(UserError, match="resnet18: choose from fasterrcnn_mobilenet.*retinanet"):
        load_torchvision("torchvision://resnet18", weights)
    with pytest.raises(UserError, match="neither a file nor one of .*_fpn: COCO_V1, DEFAULT"):
        load_torchvision(SOURCE, "COCO_V9")
    with pytest.raises(UserError, match="TEACHER.WEIGHTS does not fit its model"):
        load_torchvision("torchvision://fasterrcnn_resnet50_fpn", weights)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="has no roi_heads.* it is no state_dict of torchvision's"):
        load_torchvision(SOURCE, str(tmp_path / "other.pth"))


@pytest.mark.parametrize("steps", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_it_teaches_an_r_cnn(distill_cfg, weights, batch, storage, steps):
    """Its two maps of stride 32 and its map of stride 64 have counterparts, p2 to p4 have none."""
    distill_cfg.TEACHER.CONFIG_FILE, distill_cfg.TEACHER.WEIGHTS = SOURCE, weights
    distill_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    distill_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    first, last = first_and_last(distill_cfg, batch, steps)
    assert last["loss_reviewkd"] < first["loss_reviewkd"]
    assert sum(last.values()) < sum(first.values())


@pytest.mark.slow
def test_it_teaches_a_retinanet(retina_cfg, tmp_path, batch, storage):
    """Its anchors are rounded."""
    source, octaves = "retinanet_resnet50_fpn", (1, 2 ** (1 / 3), 2 ** (2 / 3))
    retina_cfg.TEACHER.CONFIG_FILE = f"torchvision://{source}"
    retina_cfg.TEACHER.WEIGHTS = _save(tmp_path / "retina.pth", 11, name=source)
    sizes = [[x * octave for octave in octaves] for x in (32, 64, 128, 256, 512)]
    retina_cfg.MODEL.ANCHOR_GENERATOR.SIZES = sizes
    retina_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    first, last = first_and_last(retina_cfg, batch, 2)
    assert last["loss_reviewkd"] < first["loss_reviewkd"]
    assert last["loss_kd"] < first["loss_kd"]

"""The detectors' YAML files of configs/."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.model_zoo import get_checkpoint_url, get_config_file
from detectron2.modeling import build_model
from detectron2.structures import BitMasks
from detectron2.utils.events import EventStorage

import eakd_det.modeling  # noqa: F401  (registers backbones)
from eakd_det.config.defaults import TIMM_BACKBONES
from eakd_det.config.merge import load_config
from eakd_det.distillers import DISTILLERS
from eakd_det.modeling.teacher.build import build_teacher, teacher_config

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "configs").glob("*-Detection/*.yaml"))
COCO = ROOT / "configs" / "COCO-Detection"


each_file = pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}"
)


@each_file
def test_every_config_loads(path):
    cfg = load_config(str(path))
    assert path.stem == "Base" or path.stem in cfg.OUTPUT_DIR
    assert bool(cfg.DISTILL.METHODS) != path.stem.startswith(("Base", "Student-", "Teacher-"))
    methods = path.stem.removeprefix("EA-").split("-")
    assert all(name in methods for name in cfg.DISTILL.METHODS)
    for name in cfg.DISTILL.METHODS:
        assert cfg.DISTILL[name].get("STANDARDIZE", False) == ("LS" in methods)
    assert path.stem.startswith("EA-") == cfg.DISTILL.EA.ENABLED
    modes = [mode for mode in ("matched", "teacher") if mode in methods]
    assert [cfg.DISTILL.EA.MODE] == (modes or ["full"])


@each_file
def test_plain_students_have_no_key_of_ours(path):
    if path.stem.startswith(("Base", "Student-", "Teacher-")):
        cfg = get_cfg()
        if load_config(str(path)).MODEL.BACKBONE.NAME in TIMM_BACKBONES:
            cfg.MODEL.TIMM = CfgNode({"NAME": ""})
        cfg.merge_from_file(str(path))
    else:
        with pytest.raises(KeyError):
            get_cfg().merge_from_file(str(path))


@pytest.mark.parametrize("name", ["KD", "EA-KD", "DKD", "EA-DKD"])
def test_coco_recipe(name):
    cfg = load_config(str(COCO / f"{name}-R18-R101.yaml"))
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR) == (8, 0.01)
    assert (solver.MAX_ITER, tuple(solver.STEPS)) == (180000, (120000, 160000))
    assert cfg.DISTILL.METHODS == (name.removeprefix("EA-"),)
    assert cfg.DISTILL.KD.TEMPERATURE == 1.0 or "DKD" in name
    if "DKD" in name:
        node = cfg.DISTILL.DKD
        assert (node.ALPHA, node.BETA, node.TEMPERATURE) == (1.0, 0.25, 1.0)
    if name.startswith("EA-"):
        assert cfg.DISTILL.EA.TEMPERATURE == 4.0
    assert cfg.INPUT.FORMAT == "RGB"
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    ("name", "teacher"),
    [
        ("EA-DKD-R18-R101", "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"),
        ("DKD-R50-R101", "COCO-Detection/faster_rcnn_R_101_FPN_3x.yaml"),
        ("DKD-REVIEWKD-MV2-R50", "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"),
        ("DKD-Mask-R18-R101", "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml"),
        ("KD-RetinaNet-R18-R101", "COCO-Detection/retinanet_R_101_FPN_3x.yaml"),
    ],
)
def test_coco_teachers_are_the_model_zoo_s(name, teacher):
    cfg = load_config(str(COCO / f"{name}.yaml"))
    assert teacher == cfg.TEACHER.CONFIG_FILE
    get_config_file(teacher)  # raises where it does not exist
    published = get_checkpoint_url(teacher).rsplit("detectron2/", 1)[1]
    assert f"detectron2://{published}" == cfg.TEACHER.WEIGHTS


def narrow(cfg):
    """Fewer channels and fewer ROIs, where that is no matter of what a config says."""
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A narrow teacher of a config, random weights: one for all that prepare it alike."""
    folder, built = tmp_path_factory.mktemp("teachers"), {}

    def build(cfg):
        compared = {DISTILLERS[name].compares for name in cfg.DISTILL.METHODS}
        key = cfg.TEACHER.dump(), bool(compared & {"features", "heads", "objectness"})
        if key not in built:
            cfg = cfg.clone()
            cfg.TEACHER.WEIGHTS = "random"
            config = teacher_config(cfg)
            narrow(config)
            config.MODEL.RESNETS.STEM_OUT_CHANNELS = config.MODEL.RESNETS.WIDTH_PER_GROUP = 8
            config.MODEL.RESNETS.RES2_OUT_CHANNELS = 32
            cfg.TEACHER.CONFIG_FILE = str(folder / "teacher.yaml")
            (folder / "teacher.yaml").write_text(config.dump())
            torch.manual_seed(0)
            model = build_model(config)
            for name, buffer in model.named_buffers():
                if name.endswith("norm.weight"):  # deep random networks explode without
                    buffer.fill_(0.3)
            cfg.TEACHER.WEIGHTS = str(folder / "teacher.pth")
            torch.save({"model": model.state_dict()}, cfg.TEACHER.WEIGHTS)
            built[key] = build_teacher(cfg)
        return built[key]

    return build


@each_file
def test_every_config_trains(path, teachers, monkeypatch, batch, graphs):
    """A step at a tiny image size, with random weights: finite losses that move the student."""
    monkeypatch.setattr("eakd_det.modeling.meta_arch.distilled.build_teacher", teachers)
    cfg = load_config(str(path))
    cfg.MODEL.DEVICE = "cpu"
    narrow(cfg)
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, buffer in model.named_buffers():
        if name.endswith("norm.weight"):
            buffer.fill_(0.3)
    batch = batch[:1]
    masks = torch.zeros(2, *batch[0]["instances"].image_size, dtype=torch.bool)
    masks[:, 20:60, 20:60] = True
    batch[0]["instances"].gt_masks = BitMasks(masks)
    batch[0]["instances"].gt_classes.clamp_(max=cfg.MODEL.ROI_HEADS.NUM_CLASSES - 1)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with EventStorage():
        losses = model(batch)
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    for method in cfg.DISTILL.METHODS:
        assert any(name.startswith(f"loss_{method.lower()}") for name in losses)
    sum(losses.values()).backward()
    # Processes wait for a gradient of each, so no parameter may be left without.
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in trained.values())
    assert any(p.grad.any() for name, p in trained.items() if "bottom_up" in name)

"""A tiny student and teacher of real Detectron2, and a batch for them."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

import eakd_det.meta_arch  # noqa: F401  (registers the meta-architectures)
from eakd_det.config import add_distill_config

NUM_CLASSES = 5

torch.set_num_threads(1)  # tiny models lose more to threads that wait for each other


def _small_fpn(cfg, depth):
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [24], [32], [48], [64]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 50
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    return cfg


@pytest.fixture
def stock_cfg():
    """A stock R18-FPN that reads RGB."""
    cfg = _small_fpn(get_cfg(), 18)
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.INPUT.FORMAT = "RGB"
    cfg.MODEL.PIXEL_MEAN = [123.675, 116.28, 103.53]
    cfg.MODEL.PIXEL_STD = [58.395, 57.12, 57.375]
    return cfg


@pytest.fixture(scope="session")
def teacher_cfg():
    """A stock, narrow R50-FPN that reads BGR, with a pixel std that is not 1."""
    cfg = _small_fpn(get_cfg(), 50)
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.FPN.OUT_CHANNELS = 24
    cfg.MODEL.PIXEL_STD = [57.375, 57.12, 58.395]
    return cfg


def save_teacher(cfg, folder):
    """Paths of a teacher's config and of weights under which its logits differ between ROIs."""
    torch.manual_seed(7)
    model = build_model(cfg)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("norm.weight"):  # deep random networks explode without
                buffer.fill_(0.5)
            if name.endswith("norm.running_var"):
                buffer.uniform_(0.5, 1.5)
            if name.endswith("norm.running_mean"):
                buffer.uniform_(-0.2, 0.2)
        model.roi_heads.box_predictor.cls_score.weight.mul_(20)
    torch.save({"model": model.state_dict()}, folder / "teacher.pth")
    (folder / "teacher.yaml").write_text(cfg.dump())
    return str(folder / "teacher.yaml"), str(folder / "teacher.pth")


@pytest.fixture(scope="session")
def teacher_files(teacher_cfg, tmp_path_factory):
    """Paths of the config and the weights of the teacher of `teacher_cfg`."""
    return save_teacher(teacher_cfg, tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def distill_cfg(stock_cfg, teacher_files):
    """The stock student with EA-DKD from the teacher."""
    add_distill_config(stock_cfg)
    stock_cfg.MODEL.META_ARCHITECTURE = "DistillRCNN"
    stock_cfg.TEACHER.CONFIG_FILE, stock_cfg.TEACHER.WEIGHTS = teacher_files
    stock_cfg.DISTILL.METHODS = ("DKD",)
    stock_cfg.DISTILL.EA.ENABLED = True
    return stock_cfg


@pytest.fixture
def batch():
    """Two images of different sizes, whose channels differ, with two boxes each."""
    generator = torch.Generator().manual_seed(3)
    inputs = []
    for height, width in [(96, 128), (128, 96)]:
        image = torch.rand(3, height, width, generator=generator)
        image = image * torch.tensor([255, 120, 30]).view(3, 1, 1)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor([[8.0, 8, 50, 60], [40, 30, 90, 90]]))
        instances.gt_classes = torch.tensor([0, NUM_CLASSES - 1])
        inputs.append({"image": image.to(torch.uint8), "instances": instances})
    return inputs


@pytest.fixture
def storage():
    """The event storage that stock models write to in training."""
    with EventStorage() as storage:
        yield storage

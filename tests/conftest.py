"""A tiny student and teacher of real Detectron2, and a batch for them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from detectron2.utils.logger import setup_logger

import eakd_det.modeling  # noqa: F401  (registers the meta-architectures)
from eakd_det.config.defaults import add_distill_config
from eakd_det.data.datasets.digits import NAMES, generate_digits

from . import commands

ROOT = Path(__file__).parent.parent
NUM_CLASSES = 5

torch.set_num_threads(1)  # tiny models lose more to threads that wait for each other


def pytest_addoption(parser):
    text = "device of the tests in tests/gpu, cuda unless given; cpu runs those that a CPU can"
    parser.addoption("--device", default="cuda", help=text)


@pytest.fixture(scope="session", autouse=True)
def environment_of_started_processes(tmp_path_factory):
    """Let started processes find this checkout first, and leave the user's cache as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)  # Detectron2 may be on it
        yield


@pytest.fixture(autouse=True)
def loggers_without_set_up():
    """Reset the loggers that an earlier test has set up, which hides their messages from caplog."""
    for name in ("fvcore", "detectron2", "eakd_det", "classification", "llm"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.filters.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    setup_logger.cache_clear()


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
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 200
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 50
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
def graphs(monkeypatch):
    """Graphs that torch.compile has made of models, which then run as they are."""
    seen = []

    def backend(graph, _):
        seen.append(graph)
        return graph.forward

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **kw: compile_with(f, backend=backend, **kw))
    torch._dynamo.reset()
    return seen


@pytest.fixture
def storage():
    """The event storage that stock models write to in training."""
    with EventStorage() as storage:
        yield storage


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Names of a training and a validation dataset of a few scenes."""
    root = tmp_path_factory.mktemp("datasets") / "tiny_digits"
    generate_digits(str(root), num_scenes={"train": 6, "val": 3})
    names = []
    for split in ("train", "val"):
        name = f"tiny_digits_{split}"
        paths = str(root / "annotations" / f"{split}.json"), str(root / split)
        DatasetCatalog.register(
            name, lambda paths=paths, name=name: load_coco_json(*paths, dataset_name=name)
        )
        MetadataCatalog.get(name).set(json_file=paths[0], evaluator_type="coco")
        names.append(name)
    return names


@pytest.fixture
def run_cfg(distill_cfg, teacher_cfg, scenes, tmp_path):
    """A run of 4 steps on the tiny scenes, with a teacher of their ten classes."""
    cfg, teacher_cfg = distill_cfg, teacher_cfg.clone()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = teacher_cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(NAMES)
    teacher_cfg.INPUT.MIN_SIZE_TEST, teacher_cfg.DATALOADER.NUM_WORKERS = 96, 0
    cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS = save_teacher(teacher_cfg, tmp_path)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (scenes[0],), (scenes[1],)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (96,), 96
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0  # an untrained student is sure of nothing
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 4
    cfg.SOLVER.STEPS = ()
    cfg.SEED = 5
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    os.makedirs(cfg.OUTPUT_DIR)
    return cfg


def replace_teacher(cfg, teacher_cfg, options, folder):
    """Give the run a teacher with other options, and weights that fit it."""
    teacher_cfg = teacher_cfg.clone()
    teacher_cfg.merge_from_list(options)
    torch.manual_seed(0)  # the same teacher, whatever ran before
    torch.save({"model": build_model(teacher_cfg).state_dict()}, folder / "other.pth")
    (folder / "other.yaml").write_text(teacher_cfg.dump())
    cfg.TEACHER.CONFIG_FILE = str(folder / "other.yaml")
    cfg.TEACHER.WEIGHTS = str(folder / "other.pth")


RETINA = {
    "MODEL.META_ARCHITECTURE": "RetinaNet",
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res3", "res4", "res5"],
    "MODEL.RETINANET.NUM_CLASSES": len(NAMES),
    "MODEL.RETINANET.NUM_CONVS": 1,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16], [24], [32], [48], [64]],
}


@pytest.fixture
def retina_cfg(distill_cfg, teacher_cfg, tmp_path):
    """A small RetinaNet with EA-KD and EA-ReviewKD from a bigger one."""
    options = [x for pair in RETINA.items() for x in pair]
    torch.manual_seed(7)
    replace_teacher(distill_cfg, teacher_cfg, options, tmp_path)
    distill_cfg.merge_from_list(options)
    distill_cfg.MODEL.META_ARCHITECTURE = "DistillRetinaNet"
    distill_cfg.DISTILL.METHODS = ("KD", "REVIEWKD")
    return distill_cfg


@pytest.fixture
def cli_cfg(run_cfg, tmp_path):
    """A run on four scenes in tmp_path/data, where `start_tool` lets a tool find them."""
    generate_digits(str(tmp_path / "data" / "digits_det"), num_scenes={"train": 4, "val": 2})
    cfg = run_cfg
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("digits_det_train",), ()
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


@pytest.fixture
def tool_environment(tmp_path):
    """The environment variables of a tool, whose datasets are in tmp_path/data."""

    def environment():  # as it is when a tool starts
        data = str(tmp_path / "data")
        return {**os.environ, "OMP_NUM_THREADS": "1", "DETECTRON2_DATASETS": data}

    return environment


@pytest.fixture
def start_tool(tool_environment, tmp_path):
    """Starts a script of tools/ with arguments, in a folder of its own; a running process."""

    def start(
        name,
        *arguments,
        launcher=(sys.executable,),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ):
        return subprocess.Popen(
            [*launcher, str(ROOT / "tools" / name), *arguments],
            cwd=tmp_path,
            env=tool_environment(),
            text=True,
            stdout=stdout,
            stderr=stderr,
        )

    return start


@pytest.fixture
def call_tool(start_tool, tool_environment, tmp_path):
    """Calls a script of tools/ to its end; its return code, stdout and stderr.

    Its process is forked, which is cheap; with `launcher` that command starts it, and `ranks`
    are as `commands.call` takes them.
    """

    def call(name, *arguments, launcher=None, ranks=0):
        if launcher:
            process = start_tool(name, *arguments, launcher=launcher)
            out, err = process.communicate(timeout=300)
            return process.returncode, out, err
        options = {"folder": tmp_path, "environment": tool_environment(), "ranks": ranks}
        return commands.call(ROOT / "tools" / name, arguments, **options)

    return call


@pytest.fixture
def call_code(tmp_path):
    """Calls Python code to its end in a forked process; its return code, stdout and stderr."""

    def call(code, *arguments, environment=os.environ, ranks=0):
        (tmp_path / "code.py").write_text(code)
        options = {"folder": tmp_path, "environment": dict(environment), "ranks": ranks}
        return commands.call(tmp_path / "code.py", arguments, **options)

    return call

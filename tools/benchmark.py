#!/usr/bin/env python
"""Time training steps: the plain student against the distilled one, in turn, on one batch.

Teacher and student have random weights, so nothing is needed but a config and its data. The device
is the config's, or the CPU. --pooling times ROI pooling on the CPU alone, torchvision's and ours.
"""

import argparse
import os
import statistics
import tempfile
import time

import torch
from detectron2.data import build_detection_train_loader
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from tqdm import trange

import eakd_det.backbone
import eakd_det.data
import eakd_det.meta_arch  # noqa: F401  (registers the meta-architectures)
from eakd_det.config import load_config, stock_config
from eakd_det.detectors import use_available_device
from eakd_det.engine import DistillTrainer
from eakd_det.roi_pooling import POOLER_BACKENDS, use_sparse_pooling
from eakd_det.teacher import teacher_config

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "configs", "Digits-Detection", "EA-DKD-R18-R101.yaml")


def build(cfg, folder: str) -> dict[str, torch.nn.Module]:
    """The models to compare, the teacher with random weights."""
    cfg.TEACHER.WEIGHTS = os.path.join(folder, "teacher.pth")
    torch.save({"model": build_model(teacher_config(cfg)).state_dict()}, cfg.TEACHER.WEIGHTS)
    return {"stock": build_model(stock_config(cfg)), "distilled": DistillTrainer.build_model(cfg)}


def time_step(model, optimizer, batch) -> float:
    """Milliseconds of one training step."""
    start = time.perf_counter()
    losses = model(batch)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


# Images, height, width, ROIs an image, channels and sampling ratio.
POOLING = {"2 of 480 x 640": (2, 480, 640, 512, 256, 0), "8 of 96 x 96": (8, 96, 96, 128, 64, 0)}


def time_pooling(steps: int) -> list[list]:
    """Rows of median milliseconds, forward and backward, of each backend and size."""
    rows = []
    for title, (number, height, width, rois, channels, sampling) in POOLING.items():
        strides = (4, 8, 16, 32)
        maps = [torch.randn(number, channels, height // s, width // s) for s in strides]
        maps = [x.requires_grad_() for x in maps]
        size = torch.tensor([width, height])
        corners = torch.rand(number, rois, 2) * size * 0.7
        extents = 10 + torch.rand(number, rois, 2) * size * 0.6
        boxes = [Boxes(x) for x in torch.cat([corners, corners + extents], dim=2)]
        poolers = {
            name: ROIPooler(7, [1 / s for s in strides], sampling, "ROIAlignV2")
            for name in POOLER_BACKENDS
        }
        use_sparse_pooling(poolers["sparse"])
        times = {name: [] for name in poolers}
        for step in trange(steps + 2, desc=title):
            for name, pooler in poolers.items():
                start = time.perf_counter()
                pooler(maps, boxes).sum().backward()
                if step >= 2:
                    times[name].append(1000 * (time.perf_counter() - start))
        medians = [statistics.median(times[name]) for name in POOLER_BACKENDS]
        rows.append([title, *medians, medians[0] / medians[1]])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=CONFIG)
    parser.add_argument("--steps", type=int, default=15, help="of each model; default: %(default)s")
    parser.add_argument("--pooling", action="store_true", help="ROI pooling alone, on the CPU")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parser.parse_args()
    if args.pooling:
        header = ["ms, forward and backward", *POOLER_BACKENDS, "ratio"]
        print(tabulate(time_pooling(args.steps), header, floatfmt=".1f"))
        return
    os.chdir(ROOT)
    cfg = load_config(args.config_file, args.opts)
    use_available_device(cfg)
    with tempfile.TemporaryDirectory() as folder:
        models = build(cfg, folder)
    batch = next(iter(build_detection_train_loader(cfg)))
    optimizers = {name: build_optimizer(cfg, model) for name, model in models.items()}
    times = {name: [] for name in models}
    with EventStorage():
        for step in trange(args.steps + 2):
            for name, model in models.items():
                took = time_step(model, optimizers[name], batch)
                if step >= 2:  # the first ones allocate
                    times[name].append(took)
    base = statistics.median(times["stock"])
    rows = [
        [name, statistics.median(t), min(t), max(t), statistics.median(t) / base]
        for name, t in times.items()
    ]
    print(tabulate(rows, ["ms a step", "median", "min", "max", "ratio"], floatfmt=".2f"))


if __name__ == "__main__":
    main()

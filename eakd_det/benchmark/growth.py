"""Figure of the time of a step for different numbers of images, ROIs and classes."""

import os
import tempfile

from detectron2.config import CfgNode
from matplotlib.figure import Figure

from eakd_det.modeling.teacher.build import teacher_config

from .batches import Size, benchmark_config, make_batch, save_random_teacher, with_options
from .bench import Bench
from .steps import step_builders
from .timing import interleave, machine
from .variants import CPU_VARIANTS

BASE = {"height": 320, "batch": 1, "rois": 256, "classes": 80}
AXES = {
    "height": ((192, 320, 480), "height of a 4 : 3 image (pixels)"),
    "batch": ((1, 2, 4), "images per step"),
    "rois": ((64, 256, 512), "ROIs per image"),
    "classes": ((20, 80, 365), "classes"),
}
LINES = {
    "stock_step": "student alone, stock",
    "distill_step_torchvision_pool": "distilled, torchvision's pooling",
    "distill_step": "distilled, sparse pooling",
}
ROUNDS = 3
FIGURE = "growth.png"


def run_growth(bench: Bench) -> dict[str, dict[int, dict[str, float]]]:
    """Measure and draw how the time of a step grows, as `time_growth` returns it."""
    cfg = benchmark_config(bench.args.config_file, bench.args.opts, bench.folder)
    results = time_growth(cfg, ROUNDS)
    draw_growth(results, machine()["device"], os.path.join(bench.args.output, FIGURE))
    return results


def time_growth(cfg: CfgNode, rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """Return axis -> value -> seconds of each of LINES, with the other axes at BASE."""
    known: dict[tuple, dict[str, float]] = {}
    results = {}
    for axis, (values, _) in AXES.items():
        results[axis] = {}
        for value in values:
            point = BASE | {axis: value}
            key = tuple(point.values())
            if key not in known:
                known[key] = _time_point(cfg, point, rounds, f"{axis} {value}")
            results[axis][value] = known[key]
    return results


def _time_point(cfg: CfgNode, point: dict[str, int], rounds: int, title: str) -> dict[str, float]:
    options = {
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": point["rois"],
        "MODEL.ROI_HEADS.NUM_CLASSES": point["classes"],
        "TEACHER.WEIGHTS": "random",
    }
    cfg = with_options(cfg, options)
    size = Size(point["batch"], point["height"], point["height"] * 4 // 3)
    with tempfile.TemporaryDirectory() as folder:
        teacher = teacher_config(cfg)
        teacher.MODEL.ROI_HEADS.NUM_CLASSES = point["classes"]
        cfg.TEACHER.CONFIG_FILE = os.path.join(folder, "teacher.yaml")
        with open(cfg.TEACHER.CONFIG_FILE, "w") as f:
            f.write(teacher.dump())
        save_random_teacher(cfg, folder)
        batch = make_batch(size, point["classes"])
        builders = step_builders(cfg, {name: CPU_VARIANTS[name] for name in LINES}, batch)
        steps = {name: build() for name, build in builders.items()}
        times = interleave(steps, rounds, title=title)
    return {name: figures["seconds"] for name, figures in times.items()}


def draw_growth(results: dict[str, dict[int, dict[str, float]]], device: str, path: str) -> None:
    """Draw a panel for each axis, with the seconds per step from 0 on.

    Args:
        results: returned by `time_growth`.
        device: name of the device, for the title.
        path: path of the PNG file.
    """
    figure = Figure(figsize=(14, 3.6), layout="constrained")
    panels = figure.subplots(1, len(AXES))
    for panel, (axis, by_value) in zip(panels, results.items(), strict=True):
        for name, label in LINES.items():
            seconds = [by_value[value][name] for value in by_value]
            panel.plot(list(by_value), seconds, marker="o", label=label)
        panel.set_xticks(list(by_value))
        panel.set_xlabel(AXES[axis][1])
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds per step")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"A training step of Faster R-CNN, R101 -> R18, on {device}; unless varied, "
        f"{BASE['batch']} image of {BASE['height']} x {BASE['height'] * 4 // 3}, "
        f"{BASE['rois']} ROIs, {BASE['classes']} classes",
        fontsize=9,
    )
    figure.savefig(path, dpi=130)

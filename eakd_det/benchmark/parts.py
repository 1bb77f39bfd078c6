"""Parts of the benchmark: their timings as tables and as a dict for JSON."""

import argparse
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate

from eakd_det.config.merge import load_config
from eakd_det.model_zoo import get_config_file
from eakd_det.utils.device import use_available_device

from . import detection, growth, losses, timing
from .detection import Size
from .peak import measure_peak
from .pooling import POOLING, pooling_to_time

CONFIG, DIGITS = (f"{x}-Detection/EA-DKD-R18-R101.yaml" for x in ("COCO", "Digits"))
CPU_SIZE, GPU_SIZE, DIGITS_SIZE = Size(2, 480, 640), Size(8, 800, 1333), Size(8, 96, 96)
PARTS = ("detection", "digits", "losses", "classification", "pooling")
FIGURE = "growth.png"  # of the part "growth"
PEAKS = {"peak_stock_mib": "stock_step", "peak_distill_mib": "distill_step_torchvision_pool"}

Seconds = dict[str, float]
Variants = dict[str, Callable[[], object]]


def run(
    args: argparse.Namespace, build_classifier_steps: Callable[[str], Variants]
) -> dict[str, Any]:
    """Time the parts that the command line names, and print a table of each.

    Args:
        args: of `tools/benchmark.py`.
        build_classifier_steps: builds the steps of a classifier on a device.

    Returns:
        Part -> figures; "machine", what they depend on.
    """
    results: dict[str, Any] = {"machine": timing.machine()}
    with tempfile.TemporaryDirectory() as folder:
        if "detection" in args.only:
            cfg, size = _config(args.config_file, args.opts, folder), _size(args.size)
            results["detection"] = _time_detection(cfg, size, args.rounds)
            if cfg.MODEL.DEVICE != "cpu":
                cfg.SOLVER.AMP.ENABLED = True
                results["detection_amp"] = _time_steps(cfg, size, args.rounds, "detection, AMP")
        if "digits" in args.only:
            cfg = _config(get_config_file(DIGITS), [], folder)
            results["digits"] = _time_steps(cfg, DIGITS_SIZE, args.rounds, "digits")
        if "losses" in args.only:
            variants, title = losses.losses_to_time(), "losses, forward and backward"
            results["losses"] = _time(title, variants, 100 * args.rounds, "dkd", warmup=9)
        if "classification" in args.only:
            variants = build_classifier_steps("cuda" if torch.cuda.is_available() else "cpu")
            title = "resnet32x4 -> resnet8x4, 64 images"
            results["classification"] = _time(title, variants, 2 * args.rounds, "plain")
        if "pooling" in args.only:
            results["pooling"] = {
                title: _time(
                    f"ROI pooling, {title}", pooling_to_time(*sizes), args.rounds, "torchvision"
                )
                for title, sizes in POOLING.items()
            }
        if "growth" in args.only:
            cfg = _config(args.config_file, args.opts, folder)
            results["growth"] = growth.time_growth(cfg, 3)
            path = os.path.join(args.output, FIGURE)
            growth.draw_growth(results["growth"], results["machine"]["device"], path)
    return results


def _config(path: str, options: list[str], folder: str) -> CfgNode:
    """Load a config for the device at hand, with a random teacher whose weights go to `folder`."""
    cfg = load_config(path, options)
    use_available_device(cfg)
    detection.save_random_teacher(cfg, folder)
    return cfg


def _size(numbers: list[int] | None) -> Size:
    if numbers is None:
        return GPU_SIZE if torch.cuda.is_available() else CPU_SIZE
    return Size(*numbers)


def _time_detection(cfg: CfgNode, size: Size, rounds: int) -> dict[str, Any]:
    """Time steps and the teacher; measure how equal the variants are, and peaks of memory."""
    results: dict[str, Any] = _time_steps(cfg, size, rounds, "detection")
    teachers = detection.teachers_to_time(cfg, size)
    title = "the teacher's backbone alone"
    teachers = _time(title, teachers, rounds, "teacher_backbone_stock")
    flops, device = detection.step_flops(cfg, size), torch.device(cfg.MODEL.DEVICE)
    results |= {**teachers, "teacher_weights_mib": detection.teacher_weights_mib(cfg)}
    results["gemm_share"] = flops / results["distill_step"] / timing.gemm_peak(device)
    for key, variant in PEAKS.items():
        results[key] = measure_peak(cfg, variant, size)
    results["difference"] = detection.differences(cfg, size)
    rows = [[key, results[key]] for key in (*PEAKS, "teacher_weights_mib", "gemm_share")]
    print(tabulate([*rows, *results["difference"].items()], floatfmt=".3g"), "\n")
    return results


def _time_steps(cfg: CfgNode, size: Size, rounds: int, title: str) -> Seconds:
    steps = detection.steps_to_time(cfg, size)
    return _time(f"{title}, {size}, one training step", steps, rounds, "stock_step")


def _time(title: str, variants: Variants, rounds: int, base: str, warmup: int = 1) -> Seconds:
    """Time variants; print milliseconds and ratios to the variant `base`."""
    seconds = timing.interleave(variants, rounds, title=title, warmup=warmup)
    rows = [[name, 1000 * value, value / seconds[base]] for name, value in seconds.items()]
    print(tabulate(rows, [title, "ms", f"of {base}"], floatfmt=".3f"), "\n")
    return seconds

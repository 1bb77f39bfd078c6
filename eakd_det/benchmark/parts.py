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

from . import detection, growth, losses, pooling, timing
from .detection import Size
from .peak import measure_peak

CONFIG, DIGITS = (f"{x}-Detection/EA-DKD-R18-R101.yaml" for x in ("COCO", "Digits"))
CPU_SIZE, GPU_SIZE, DIGITS_SIZE = Size(2, 480, 640), Size(8, 800, 1333), Size(8, 96, 96)
PARTS = ("detection", "digits", "losses", "classification", "pooling")
FIGURE = "growth.png"  # of the part "growth"
PEAKS = {"peak_stock_mib": "stock_step", "peak_distill_mib": "distill_step_torchvision_pool"}

Seconds = dict[str, float]
BuildSteps = Callable[..., dict[str, Callable[[], None]]]


def run(args: argparse.Namespace, build_classifier_steps: BuildSteps) -> dict[str, Any]:
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
            results["losses"] = _time_losses(args.rounds)
        if "classification" in args.only:
            results["classification"] = _time_classifiers(build_classifier_steps, args.rounds)
        if "pooling" in args.only:
            results["pooling"] = _time_pooling(args.rounds)
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
    teachers = timing.interleave(teachers, rounds, title="teacher")
    _print("the teacher's backbone alone", teachers, "teacher_backbone_stock")
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
    steps = timing.interleave(detection.steps_to_time(cfg, size), rounds, title=title)
    _print(f"{title}, {size}, one training step", steps, "stock_step")
    return steps


def _time_losses(rounds: int) -> Seconds:
    results = timing.interleave(losses.losses_to_time(), 100 * rounds, warmup=9)
    _print("losses, forward and backward", results, "dkd")
    return results


def _time_classifiers(build_steps: BuildSteps, rounds: int) -> Seconds:
    variants = build_steps(device="cuda" if torch.cuda.is_available() else "cpu")
    results = timing.interleave(variants, 2 * rounds, title="classification")
    _print("resnet32x4 -> resnet8x4, 64 images", results, "plain")
    return results


def _time_pooling(rounds: int) -> dict[str, Seconds]:
    results = {}
    for title, sizes in pooling.POOLING.items():
        results[title] = timing.interleave(pooling.pooling_to_time(*sizes), rounds, title=title)
        _print(f"ROI pooling, {title}", results[title], "torchvision")
    return results


def _print(title: str, seconds: Seconds, base: str) -> None:
    """Print a table of milliseconds and of ratios to the variant `base`."""
    rows = [[name, 1000 * value, value / seconds[base]] for name, value in seconds.items()]
    print(tabulate(rows, [title, "ms", f"of {base}"], floatfmt=".3f"), "\n")

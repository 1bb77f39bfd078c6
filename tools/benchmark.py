#!/usr/bin/env python
"""Time training steps, plain and distilled, and their parts: variants in turn, medians, and JSON.

Images are made up and weights random, so nothing is needed but a config. The device is a GPU, or
the CPU where there is none. Other programs on the same cores change the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

import torch
from tabulate import tabulate

from classification.benchmark import build_steps
from eakd_det.benchmark import detection, growth, losses, pooling, timing
from eakd_det.config.defaults import detection_config
from eakd_det.config.merge import load_config
from eakd_det.utils.command_line import parse_arguments
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = os.path.join(ROOT, "configs", "COCO-Detection", "EA-DKD-R18-R101.yaml")
DIGITS = os.path.join(ROOT, "configs", "Digits-Detection", "EA-DKD-R18-R101.yaml")
CPU_SIZE, GPU_SIZE, DIGITS_SIZE = (2, 480, 640), (8, 800, 1333), (8, 96, 96)
PARTS = ("detection", "digits", "losses", "classification", "pooling")
FIGURE = "growth.png"


def time_steps(cfg, size, rounds: int, title: str) -> dict[str, float]:
    """Seconds of whole steps; a table of them."""
    steps = timing.interleave(detection.steps_to_time(cfg, size), rounds, title=title)
    show(f"{title}, {size}, one training step", steps, "stock_step")
    return steps


def time_detection(args: argparse.Namespace, cfg, size) -> dict[str, float]:
    """Steps, the teacher alone, how equal the variants are, peaks of memory, share of the peak."""
    results = time_steps(cfg, size, args.rounds, "detection")
    teachers = detection.teachers_to_time(cfg, size)
    teachers = timing.interleave(teachers, args.rounds, title="teacher")
    show("the teacher's backbone alone", teachers, "teacher_backbone_stock")
    flops, device = detection.step_flops(cfg, size), torch.device(cfg.MODEL.DEVICE)
    results |= {**teachers, "teacher_weights_mib": detection.teacher_weights_mib(cfg)}
    results["gemm_share"] = flops / results["distill_step"] / timing.gemm_peak(device)
    for key, variant in PEAKS.items():
        results[key] = measure_peak(args, cfg, variant)
    results["difference"] = detection.differences(cfg, size)
    rows = [[key, results[key]] for key in (*PEAKS, "teacher_weights_mib", "gemm_share")]
    print(tabulate([*rows, *results["difference"].items()], floatfmt=".3g"), "\n")
    return results


PEAKS = {"peak_stock_mib": "stock_step", "peak_distill_mib": "distill_step_torchvision_pool"}


def measure_peak(args: argparse.Namespace, cfg, variant: str) -> float:
    """Peak memory (MiB) of three steps in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--peak", variant]
    command += ["--config-file", args.config_file, "--size", *map(str, args.size), *args.opts]
    command += ["TEACHER.WEIGHTS", cfg.TEACHER.WEIGHTS, "MODEL.DEVICE", cfg.MODEL.DEVICE]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.splitlines()[-1])


def print_peak(args: argparse.Namespace, cfg, size) -> None:
    """What `measure_peak` reads."""
    batch = detection.make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    step = detection.build_step(cfg, args.peak, batch)
    for _ in range(3):
        step()
    print(timing.peak_memory_mib())


def show(title: str, seconds: dict[str, float], base: str) -> None:
    """Print a table of milliseconds and of ratios to one of them."""
    rows = [[name, 1000 * value, value / seconds[base]] for name, value in seconds.items()]
    print(tabulate(rows, [title, "ms", f"of {base}"], floatfmt=".3f"), "\n")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All parts that are asked for."""
    results = {"machine": timing.machine()}
    with tempfile.TemporaryDirectory() as folder:
        if "detection" in args.only:
            cfg = config_of(args.config_file, args.opts, folder)
            results["detection"] = time_detection(args, cfg, detection.Size(*args.size))
            if cfg.MODEL.DEVICE != "cpu":
                cfg.SOLVER.AMP.ENABLED = True
                amp = time_steps(cfg, detection.Size(*args.size), args.rounds, "detection, AMP")
                results["detection_amp"] = amp
        if "digits" in args.only:
            cfg = config_of(DIGITS, [], folder)
            size = detection.Size(*DIGITS_SIZE)
            results["digits"] = time_steps(cfg, size, args.rounds, "digits")
    if "losses" in args.only:
        results["losses"] = timing.interleave(losses.losses_to_time(), 100 * args.rounds, warmup=9)
        show("losses, forward and backward", results["losses"], "dkd")
    if "classification" in args.only:
        variants = build_steps(device="cuda" if torch.cuda.is_available() else "cpu")
        results["classification"] = timing.interleave(
            variants, 2 * args.rounds, title="classification"
        )
        show("resnet32x4 -> resnet8x4, 64 images", results["classification"], "plain")
    if "pooling" in args.only:
        results["pooling"] = {}
        for title, sizes in pooling.POOLING.items():
            variants = pooling.pooling_to_time(*sizes)
            results["pooling"][title] = timing.interleave(variants, args.rounds, title=title)
            show(f"ROI pooling, {title}", results["pooling"][title], "torchvision")
    if "growth" in args.only:
        with tempfile.TemporaryDirectory() as folder:
            results["growth"] = growth.time_growth(
                config_of(args.config_file, args.opts, folder), 3
            )
        path = os.path.join(args.output, FIGURE)
        growth.draw_growth(results["growth"], results["machine"]["device"], path)
    return results


def config_of(path: str, options: list[str], folder: str):
    """A config on the device that is there, with a random teacher."""
    cfg = load_config(path, options)
    use_available_device(cfg)
    detection.save_random_teacher(cfg, folder)
    return cfg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default=CONFIG, help="of the detector; COCO's by default")
    parser.add_argument(
        "--size", nargs=3, type=int, metavar=("IMAGES", "HEIGHT", "WIDTH"), help="of its batch"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each variant")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*PARTS, "growth"],
        default=PARTS,
        help=f"growth draws {FIGURE}: how a step's time grows with images, ROIs and classes",
    )
    parser.add_argument("--output", default=os.path.join(ROOT, "output", "benchmark"))
    parser.add_argument("--peak", choices=detection.VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    args = parse_arguments(parser, detection_config())
    args.config_file, args.output = map(os.path.abspath, (args.config_file, args.output))
    os.chdir(ROOT)  # the configs' paths start there
    if args.peak:
        print_peak(args, load_config(args.config_file, args.opts), detection.Size(*args.size))
        return
    if args.size is None:
        args.size = GPU_SIZE if torch.cuda.is_available() else CPU_SIZE
    os.makedirs(args.output, exist_ok=True)
    results = run(args)
    path = os.path.join(args.output, "results.json")
    with write_atomically(path) as f:
        json.dump(results, f, indent=1)
    print(f"Written to {path}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")

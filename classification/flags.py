"""Flags --teacher, --student, --epochs and --pretrained, which stand for keys of the config."""

import argparse
import os
from typing import Any

from detectron2.config import CfgNode

from eakd_det.analysis.runs import named_run
from eakd_det.utils.errors import UserError

from .config import as_options, load_config, scaled_schedule
from .models import EXTERNAL, MODELS
from .teacher_run import PRETRAINED


def apply_flags(args: argparse.Namespace) -> None:
    """Put the keys that the flags stand for before the KEY VALUE pairs of a command line.

    Args:
        args: with config_file, opts, teacher, student (names of models, folders of runs, or None),
            epochs (or None) and pretrained.

    Raises:
        UserError: there is no such model or run, or the config has no use for a flag.
    """
    keys: dict[str, Any] = {}
    if args.student:
        keys |= _network("MODEL", args.student)
    if args.teacher:
        keys |= _network("TEACHER", args.teacher)
    cfg = load_config(args.config_file, [*as_options(keys), *args.opts])
    if args.teacher:
        _check_teacher(cfg, args)
    if args.pretrained:
        keys |= _pretrained(cfg)
    if args.epochs:
        keys |= {**scaled_schedule(cfg.SOLVER, args.epochs), "TEACHER.EPOCHS": args.epochs}
    args.opts = [*as_options(keys), *args.opts]


def _network(key: str, text: str) -> dict[str, Any]:
    """Return the keys of a network by its name or by the folder of its run."""
    if text in MODELS or text.startswith(EXTERNAL):
        return {f"{key}.NAME": text, f"{key}.WEIGHTS": ""}
    if not os.path.exists(text):
        flag = "--teacher" if key == "TEACHER" else "--student"
        raise UserError(
            f"{flag}: {text!r} is neither the folder of a run nor a model: timm:NAME, "
            f"torchvision:NAME, {', '.join(MODELS)}."
        )
    run = named_run(text)
    file = run.config_file()
    own = load_config(file)
    keys = {
        f"{key}.NAME": own.MODEL.NAME,
        f"{key}.WEIGHTS": run.weights,
        f"{key}.LAYERS": tuple(own.MODEL.LAYERS),
    }
    if key == "TEACHER":  # which sees the student's images
        keys |= {"TEACHER.CONFIG_FILE": file}
        keys |= {f"DATASET.{name}": own.DATASET[name] for name in ("IMAGE_SIZE", "MEAN", "STD")}
    return keys


def _check_teacher(cfg: CfgNode, args: argparse.Namespace) -> None:
    if not cfg.DISTILL.METHODS:
        raise UserError(f"--teacher: {args.config_file} has no DISTILL.METHODS.")
    if not (cfg.TEACHER.WEIGHTS or cfg.TEACHER.CONFIG_FILE):
        raise UserError(
            f"--teacher {args.teacher}: {args.config_file} has no TEACHER.CONFIG_FILE to train it "
            "with; name the folder of its run."
        )


def _pretrained(cfg: CfgNode) -> dict[str, Any]:
    """Return the keys with which models of timm and torchvision start from published weights."""
    keys: dict[str, Any] = {}
    if cfg.MODEL.NAME.startswith(EXTERNAL) and not cfg.MODEL.WEIGHTS:
        keys["MODEL.WEIGHTS"] = PRETRAINED
    if cfg.TEACHER.NAME.startswith(EXTERNAL) and not cfg.TEACHER.WEIGHTS:
        keys["TEACHER.PRETRAINED"] = True
    if not keys:
        raise UserError("--pretrained: no model of timm or torchvision starts without weights.")
    return keys

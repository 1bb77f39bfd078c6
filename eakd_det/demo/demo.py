"""Demo: a teacher, a student alone and an EA-DKD student on digits_det, trained from scratch."""

import contextlib
import json
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.env import seed_all_rng
from tabulate import tabulate
from torch import nn

from eakd_det.analysis.metrics import METRICS as METRICS_FILE
from eakd_det.config.merge import load_config
from eakd_det.engine import DistillTrainer, evaluate
from eakd_det.engine.run_record import record_start
from eakd_det.evaluation.detections import read_detections
from eakd_det.evaluation.results import METRICS
from eakd_det.model_zoo import get_config_file
from eakd_det.utils.device import use_available_device
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json, write_atomically, write_json
from eakd_det.utils.output_dir import TRAINER_FILES
from eakd_det.utils.visualizer import draw_side_by_side

from .trainer import DemoTrainer

logger = logging.getLogger(__name__)


class Network(NamedTuple):
    """Network of the demo.

    Attributes:
        title: name in the table.
        config: file in configs/Digits-Detection.
        share: share of a demo with one seed in its time on a CPU.
    """

    title: str
    config: str
    share: float


NETWORKS = {
    "teacher": Network("teacher R101", "Teacher-R101.yaml", 0.56),
    "student": Network("student R18 alone", "Student-R18.yaml", 0.2),
    "ea_dkd": Network("student R18, EA-DKD", "EA-DKD-R18-R101.yaml", 0.24),
}
STUDENTS = ("student", "ea_dkd")
CHECKPOINT_PERIOD = 100  # iterations that a stopped demo can lose
NUM_PICTURES = 6


def set_up_logging(output_dir: str) -> None:
    """Send the demo's own lines to the terminal, and all messages to log.txt."""
    os.makedirs(output_dir, exist_ok=True)
    everything = logging.FileHandler(os.path.join(output_dir, "log.txt"))
    everything.setFormatter(logging.Formatter("[%(asctime)s] %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[everything])
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    logging.getLogger("eakd_det").addHandler(terminal)
    logging.getLogger("eakd_det.engine.train_step.step").setLevel(logging.WARNING)
    logging.getLogger("torch.fx").setLevel(logging.ERROR)  # a warning to authors of tracers


def run_demo(
    output_dir: str, options: list[str], *, seeds: int = 1, overwrite: bool = False
) -> dict[str, dict[str, float]]:
    """Train, evaluate and draw detections; a demo that was stopped continues.

    Args:
        output_dir: gets a folder for each run, results.json and detections.png.
        options: KEY VALUE pairs that override every config.
        seeds: runs of each student, with the seeds SEED, SEED + 1, ... and the same teacher.
        overwrite: start anew, and remove the runs in these folders.

    Returns:
        Run -> AP, AP50, AP75 (percent), parameters and seconds of training. The runs are
        "teacher", "student", "ea_dkd", "student-2", "ea_dkd-2", "student-3", ...

    Raises:
        UserError: a run's folder holds something else.
    """
    runs = ["teacher", *(_run(name, number) for number in range(1, seeds + 1) for name in STUDENTS)]
    configs = {run: _config(run, output_dir, options) for run in runs}
    if not overwrite:
        for cfg in configs.values():
            _check_folder(cfg)
    dataset = configs["teacher"].DATASETS.TEST[0]
    for name in (*configs["teacher"].DATASETS.TRAIN, dataset):
        DatasetCatalog.get(name)  # generates the scenes on first use
    for cfg in configs.values():
        _prepare_folder(cfg, overwrite)
    results = {}
    for number, (run, cfg) in enumerate(configs.items(), start=1):
        seed = f", seed {cfg.SEED}" if seeds > 1 and run != "teacher" else ""
        title = f"[{number}/{len(runs)}] {_network(run).title}{seed}"
        results[run] = _train_and_evaluate(runs[number - 1 :], cfg, title)
    write_json(os.path.join(output_dir, "results.json"), results)
    _draw(os.path.join(output_dir, "detections.png"), dataset, configs)
    return results


def format_results(results: dict[str, dict[str, float]]) -> str:
    """Return the table of results, means and standard deviations over the seeds, and the gain."""
    of_network = {
        name: [result for run, result in results.items() if _network(run) is network]
        for name, network in NETWORKS.items()
    }
    rows = [
        [
            NETWORKS[name].title,
            *(_mean_and_deviation([run[metric] for run in runs]) for metric in METRICS),
            f"{runs[0]['parameters'] / 1e6:.1f} M",
            f"{sum(run['seconds'] for run in runs) / len(runs):.0f}",
        ]
        for name, runs in of_network.items()
    ]
    header = ["", *METRICS, "parameters", "seconds"]
    table = tabulate(rows, header, tablefmt="simple", disable_numparse=True, stralign="right")
    pairs = zip(of_network["student"], of_network["ea_dkd"], strict=True)
    gains = [distilled["AP"] - alone["AP"] for alone, distilled in pairs]
    if len(gains) == 1:
        return f"{table}\n\nEA-DKD: {gains[0]:+.1f} AP with one seed; --seeds 5 adds four."
    return (
        f"{table}\n\nMeans over {len(gains)} seeds ± the standard deviation of one run.\n"
        f"EA-DKD: {mean(gains):+.1f} AP, with the same seed {min(gains):+.1f} to {max(gains):+.1f}."
    )


def _run(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


def _network(run: str) -> Network:
    return NETWORKS[run.split("-")[0]]


def _mean_and_deviation(values: list[float]) -> str:
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{deviation}"


def _config(run: str, output_dir: str, options: list[str]) -> CfgNode:
    # The configs of plain students are stock ones, which cannot have our key.
    faster = ["MODEL.ROI_HEADS.POOLER_BACKEND", "sparse"]
    path = get_config_file(f"Digits-Detection/{_network(run).config}")
    cfg = load_config(path, [*faster, *options])
    cfg.SEED += int(run.partition("-")[2] or 1) - 1
    cfg.OUTPUT_DIR = os.path.join(output_dir, run)
    cfg.SOLVER.CHECKPOINT_PERIOD = CHECKPOINT_PERIOD
    if cfg.DISTILL.METHODS:
        cfg.TEACHER.CONFIG_FILE = os.path.join(output_dir, "teacher", "student.yaml")
        cfg.TEACHER.WEIGHTS = os.path.join(output_dir, "teacher", "model_final.pth")
    use_available_device(cfg)
    return cfg


def _train_and_evaluate(runs: list[str], cfg: CfgNode, title: str) -> dict[str, float]:
    """Return the saved results of the first run, or train it to its end and evaluate it.

    Args:
        runs: the run, and those that follow it.
        cfg: its config.
        title: its title in lines of progress.
    """
    folder = cfg.OUTPUT_DIR
    path = os.path.join(folder, "result.json")
    if done := read_json(path):
        logger.info("%s: finished before", title)
        return done
    train_cfg = cfg.clone()
    train_cfg.DATASETS.TEST = ()  # evaluated below, through the stock architecture
    seed_all_rng(cfg.SEED)
    is_begun = os.path.exists(os.path.join(folder, "last_checkpoint"))
    record_start(folder, cfg.MODEL.DEVICE, resume=is_begun)
    trainer = DemoTrainer(
        train_cfg,
        lambda *state: _log_progress(runs, title, *state),
        lambda model: _evaluate_on_the_way(cfg, model),
    )
    trainer.resume_or_load(resume=True)
    trainer.train()
    logger.info("%s: evaluating on %s", title, cfg.DATASETS.TEST[0])
    with open(os.path.join(folder, "evaluation.txt"), "w") as f, contextlib.redirect_stdout(f):
        metrics = evaluate(cfg, os.path.join(folder, "model_final.pth"))["bbox"]
    result = {name: metrics[name] for name in METRICS}
    with open(os.path.join(folder, METRICS_FILE), "a") as f:  # after those during training
        at_end = {f"bbox/{name}": value for name, value in result.items()}
        f.write(json.dumps({"iteration": cfg.SOLVER.MAX_ITER, **at_end}) + "\n")
    result["parameters"] = sum(p.numel() for p in trainer.model.parameters())
    result["seconds"] = trainer.stopwatch.seconds
    logger.info("%s: AP %.1f  AP50 %.1f  AP75 %.1f", title, *list(result.values())[:3])
    write_json(path, result, indent=None)
    for name in os.listdir(folder):  # a finished run needs only its last checkpoint
        if name.startswith("model_0"):
            os.remove(os.path.join(folder, name))
    return result


def _evaluate_on_the_way(cfg: CfgNode, model: nn.Module) -> dict[str, dict[str, float]]:
    """Return AP, AP50 and AP75 of a model during training, for its learning curve."""
    with open(os.devnull, "w") as f, contextlib.redirect_stdout(f):
        metrics = DistillTrainer.test(cfg, model)["bbox"]
    return {"bbox": {name: metrics[name] for name in METRICS}}


def _check_folder(cfg: CfgNode) -> None:
    """Refuse a folder that is not empty and was not made by a demo with this config."""
    folder = cfg.OUTPUT_DIR
    path = Path(folder, "config.yaml")
    is_same = path.exists() and path.read_text() == cfg.dump()
    if not is_same and os.path.isdir(folder) and set(os.listdir(folder)) - {path.name}:
        raise UserError(
            f"{folder} was made with another config, or not by the demo: --overwrite starts the "
            "demo anew, and removes the run there; or choose another --output-dir."
        )


def _prepare_folder(cfg: CfgNode, overwrite: bool) -> None:
    """Make the folder of a run, with the config by which `_check_folder` recognises it."""
    folder = cfg.OUTPUT_DIR
    os.makedirs(folder, exist_ok=True)
    if overwrite:
        TRAINER_FILES.remove(folder)
    with write_atomically(os.path.join(folder, "config.yaml")) as f:
        f.write(cfg.dump())


def _log_progress(
    runs: list[str], title: str, iteration: int, iterations: int, loss: float, seconds_each: float
) -> None:
    """Log the progress of the first run, and the time left of it and of the whole demo."""
    here = (iterations - iteration) * seconds_each
    share, *later = (_network(run).share for run in runs)
    all_of_it = here + iterations * seconds_each * sum(later) / share
    logger.info(
        "%s: iteration %d/%d  loss %.2f  left: %s of this run, about %s in all",
        *(title, iteration, iterations, loss),
        *(timedelta(seconds=round(seconds)) for seconds in (here, all_of_it)),
    )


def _draw(path: str, dataset: str, configs: dict[str, CfgNode]) -> None:
    metadata = MetadataCatalog.get(dataset)
    detections = {
        network.title: read_detections(
            os.path.join(configs[name].OUTPUT_DIR, "inference", "coco_instances_results.json"),
            metadata,
        )
        for name, network in NETWORKS.items()
    }
    draw_side_by_side(path, DatasetCatalog.get(dataset)[:NUM_PICTURES], metadata, detections)

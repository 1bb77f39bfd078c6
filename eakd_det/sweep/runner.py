"""Training of a grid: each run in a process of its own, several at once, and resumable."""

import heapq
import logging
import os
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from eakd_det.utils.errors import UserError
from eakd_det.utils.lock import run_lock

from . import processes
from .grid import Run, refuse_outdated

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1


def run_sweep(
    runs: list[Run], script: str, output_dir: str, jobs: int = 1, *, overwrite: bool = False
) -> dict[str, str]:
    """Train what is not finished yet: first the teachers one by one, then the runs.

    A KeyboardInterrupt stops the processes; the same call goes on from their checkpoints.

    Args:
        runs: of `eakd_det.sweep.grid.plan`.
        script: path of the script of their kind.
        output_dir: holds the output of the teachers' training, teachers/*.txt.
        jobs: processes at once. They share the CPU's cores, unless OMP_NUM_THREADS is set, and
            take turns on the GPUs.
        overwrite: train runs of another origin anew.

    Returns:
        Title of a failed run -> the reason, with the last lines of its output.

    Raises:
        UserError: there are such runs, and they are not to be overwritten.
    """
    if not overwrite:
        refuse_outdated({str(run.folder): run.outdated() for run in runs})
    todo = [run for run in runs if not _is_done(run)]
    failed = _train_teachers(todo, script, Path(output_dir, "teachers"))
    if not overwrite:  # of a teacher that was gone and has been trained anew
        refuse_outdated({str(run.folder): run.outdated() for run in runs})
    todo = [run for run in runs if run.result() is None]
    failures = {f"teacher {teacher}": text for teacher, text in failed.items()}
    ready = []
    for run in todo:
        if failed.keys() & run.kind.missing(run.cfg).keys():
            failures[run.title] = "not started without its teacher"
        else:
            ready.append(run)
    return failures | _Grid(script, jobs, overwrite).run(ready)


def _is_done(run: Run) -> bool:
    result = run.result()
    if result is not None:
        logger.info("%s: %s, finished before", run.title, run.kind.describe(result))
    return result is not None


def _train_teachers(runs: list[Run], script: str, log_dir: Path) -> dict[str, str]:
    """Train each missing model that runs learn from or start with.

    A model that another process trains is waited for.

    Returns:
        Config file of each that failed -> the reason.
    """
    missing = {
        (file, folder): run for run in runs for file, folder in run.kind.missing(run.cfg).items()
    }
    failures = {}
    for (teacher, folder), run in missing.items():
        with run_lock(folder) as lock:
            if teacher in run.kind.missing(run.cfg):
                failures |= _train_teacher(teacher, run, script, log_dir, lock)
            else:
                logger.info("Teacher %s: another process has trained it", teacher)
    return failures


def _train_teacher(
    teacher: str, run: Run, script: str, log_dir: Path, lock: TextIO
) -> dict[str, str]:
    """Train one; its process holds the lock too, in case it outlives this one."""
    log_dir.mkdir(parents=True, exist_ok=True)
    name = "-".join(Path(teacher).with_suffix("").parts[-2:])
    with open(log_dir / f"{name}.txt", "a") as log:
        logger.info("Teacher %s: training", teacher)
        start = time.monotonic()
        command = [script, *run.kind.source_arguments(teacher, run.cfg, run.arguments)]
        process = processes.start(command, log, dict(os.environ), keep=(lock,))
        try:
            code = process.wait()
        finally:
            processes.stop([process])
    seconds = time.monotonic() - start
    logger.info("Teacher %s: %s (%.0f s)", teacher, "failed" if code else "done", seconds)
    return {teacher: f"{processes.describe_end(code)}; {processes.tail(log.name)}"} if code else {}


@dataclass
class _Started:
    run: Run
    slot: int
    process: subprocess.Popen
    start: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class _Grid:
    """Runs, `jobs` of them at once."""

    def __init__(self, script: str, jobs: int, overwrite: bool):
        self.script, self.jobs, self.overwrite = script, jobs, overwrite
        self.slots = deque(range(jobs))
        self.waiting, self.started = deque(), []
        self.times, self.failures = [], {}

    def run(self, runs: list[Run]) -> dict[str, str]:
        """Train them all; return title -> reason of those that failed."""
        self.waiting = deque(runs)
        try:
            while self.waiting or self.started:
                while self.waiting and self.slots:
                    self._start(self.waiting.popleft())
                time.sleep(POLL_SECONDS)
                for started in [s for s in self.started if s.process.poll() is not None]:
                    self._finish(started)
        finally:
            processes.stop(started.process for started in self.started)
        return self.failures

    def _start(self, run: Run) -> None:
        if _is_done(run):  # meanwhile, by another sweep
            return
        try:
            log = run.open_log(overwrite=self.overwrite)
        except UserError as error:
            logger.info("%s: %s", run.title, error)
            self.failures[run.title] = str(error)
            return
        slot = self.slots.popleft()
        logger.info("%s: started", run.title)
        with log:
            environment = processes.share(self.jobs, slot)
            process = processes.start([self.script, *run.arguments], log, environment)
        self.started.append(_Started(run, slot, process, time.monotonic()))

    def _finish(self, started: _Started) -> None:
        run, code, result = started.run, started.process.returncode, started.run.result()
        self.started.remove(started)
        self.slots.append(started.slot)
        if code == 0 and result is not None:
            self.times.append(started.seconds)
            outcome = run.kind.describe(result)
        else:
            end = processes.describe_end(code) if code else "no result.json"
            self.failures[run.title] = f"{end}; {processes.tail(str(run.folder / 'stdout.txt'))}"
            outcome = f"failed, {end}"
        logger.info("%s: %s (%.0f s)%s", run.title, outcome, started.seconds, self._left())

    def _left(self) -> str:
        """Estimate the time of the other runs from those that have finished."""
        if not self.times or not (self.waiting or self.started):
            return ""
        mean = sum(self.times) / len(self.times)
        ends = [0.0] * len(self.slots) + [max(mean - s.seconds, 0.0) for s in self.started]
        heapq.heapify(ends)
        for _ in self.waiting:
            heapq.heapreplace(ends, ends[0] + mean)
        return f", left about {timedelta(seconds=round(max(ends)))}"

"""Training of a grid by a launcher: resumable, with the teachers first."""

import heapq
import logging
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from .grid import Run, refuse_outdated
from .job import ELSEWHERE, Job, Outcome, RunJob, TeacherJob
from .launchers import Handle, Launcher

logger = logging.getLogger(__name__)


def run_sweep(
    runs: list[Run],
    script: str,
    output_dir: str,
    launcher: Launcher,
    *,
    gpus: int = 1,
    overwrite: bool = False,
    detach: bool = False,
) -> dict[str, str]:
    """Train what is not finished yet: first the teachers, then the runs that need them.

    An exception, as KeyboardInterrupt, cancels what has been submitted, unless `detach` is set; the
    same call goes on from the checkpoints.

    Args:
        runs: of `eakd_det.sweep.grid.plan`.
        script: path of the script of their kind.
        output_dir: holds the output of the teachers' training, teachers/*.txt.
        launcher: trains them.
        gpus: processes of a training.
        overwrite: train runs of another origin anew.
        detach: return when all is submitted.

    Returns:
        Title of a failed run -> the reason, with the last lines of its output.

    Raises:
        UserError: there are such runs, and they are not to be overwritten.
    """
    if not overwrite:
        refuse_outdated({str(run.folder): run.outdated() for run in runs})
    done = [run for run in runs if _is_done(run)]
    todo = [run for run in runs if run not in done]
    jobs = _Jobs(script, output_dir, gpus, overwrite)
    teachers = jobs.teachers(todo)
    sweep = _Sweep(launcher)
    try:
        sweep.submit(teachers)
        if not detach and any(jobs.needs(run) for run in done):
            sweep.wait()  # their teachers were gone: trained anew, they may be others
            if not overwrite:
                refuse_outdated({str(run.folder): run.outdated() for run in runs})
            todo = [run for run in runs if run.result() is None]
        sweep.submit([jobs.of_run(run) for run in todo])
        if not detach:
            sweep.wait()
    except BaseException:
        if not detach:
            sweep.cancel()
        raise
    return sweep.failures


def _is_done(run: Run) -> bool:
    result = run.result()
    if result is not None:
        logger.info("%s: %s, finished before", run.title, run.kind.describe(result))
    return result is not None


class _Jobs:
    """Builds the jobs of a sweep."""

    def __init__(self, script: str, output_dir: str, gpus: int, overwrite: bool):
        self.script, self.output_dir = os.path.abspath(script), output_dir
        self.gpus, self.overwrite = gpus, overwrite
        self.directory = os.getcwd()
        self._teachers: dict[tuple[str, str], TeacherJob] = {}

    def teachers(self, runs: Sequence[Run]) -> list[TeacherJob]:
        """Return the jobs of the missing models that runs learn from or start with."""
        for run in runs:
            for file, folder in run.kind.missing(run.cfg).items():
                if (file, folder) not in self._teachers:
                    self._teachers[file, folder] = self._teacher(file, folder, run)
        return list(self._teachers.values())

    def _teacher(self, file: str, folder: str, run: Run) -> TeacherJob:
        arguments = run.kind.source_arguments(file, run.cfg, run.arguments)
        name = "-".join(Path(file).with_suffix("").parts[-2:])
        return TeacherJob(
            *(f"Teacher {file}", run, run.kind.command(self.script, arguments, self.gpus)),
            *(self.directory, self.gpus),
            config_file=file,
            output_dir=folder,
            log=str(Path(self.output_dir, "teachers", f"{name}.txt")),
        )

    def needs(self, run: Run) -> tuple[str, ...]:
        """Return the titles of those of `teachers` that a run needs."""
        needed = run.kind.missing(run.cfg).items()
        return tuple(self._teachers[of].title for of in needed if of in self._teachers)

    def of_run(self, run: Run) -> RunJob:
        """Return the job of a run."""
        command = run.kind.command(self.script, run.arguments, self.gpus)
        how = self.directory, self.gpus, self.needs(run)
        return RunJob(run.title, run, command, *how, overwrite=self.overwrite)


class _Sweep:
    """Jobs of a launcher, from submission to outcome."""

    def __init__(self, launcher: Launcher):
        self.launcher = launcher
        self.pending: dict[Handle, Job] = {}
        self.elsewhere: list[Job] = []  # that other processes train
        self.failures: dict[str, str] = {}
        self.times: list[float] = []
        self.started: dict[str, float] = {}  # title of a running job -> time of its start
        self.slots = 1  # jobs that have run at once
        self.retries: dict[str, int] = {}

    def submit(self, jobs: Sequence[Job]) -> None:
        """Submit jobs, those of the same teachers together."""
        groups: dict[tuple[str, ...], list[Job]] = {}
        for job in jobs:
            if any(title in self.failures for title in job.needs):
                self._fail(job, "not started without its teacher")
            else:
                groups.setdefault(job.needs, []).append(job)
        for needs, group in groups.items():
            after = [handle for handle, job in self.pending.items() if job.title in needs]
            self.pending |= zip(self.launcher.submit(group, after), group, strict=True)

    def wait(self) -> None:
        """Wait until all jobs have ended, and log their outcomes."""
        while self.pending or self.elsewhere:
            for handle, job in list(self.pending.items()):
                if handle in self.pending:  # else canceled since, without its teacher
                    self._look(handle, job)
            self._look_elsewhere()
            time.sleep(self.launcher.poll_seconds)

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self.launcher.cancel(list(self.pending))

    def _look(self, handle: Handle, job: Job) -> None:
        outcome = self.launcher.outcome(handle)
        if outcome is None:
            has_started = self.launcher.state(handle) == "running"
        else:
            has_started = outcome.seconds > 0
        if has_started and job.title not in self.started:
            logger.info("%s: started", job.title)
            self.started[job.title] = time.monotonic()
            self.slots = max(self.slots, len(self.started))
        if outcome is not None:
            del self.pending[handle]
            self.started.pop(job.title, None)
            self._finish(job, outcome)

    def _look_elsewhere(self) -> None:
        for job in [job for job in self.elsewhere if not job.lock().is_held()]:
            self.elsewhere.remove(job)
            if job.result() is None:
                self.submit([job])
            else:
                self._log_done(job, Outcome("done", ELSEWHERE))

    def _finish(self, job: Job, outcome: Outcome) -> None:
        retries = self.retries.get(job.title, 0)
        if outcome.state == "elsewhere":
            logger.info("%s: %s trains it, waiting until it ends", job.title, outcome.reason)
            self.elsewhere.append(job)
        elif outcome.state == "stopped" and retries < self.launcher.retries:
            logger.info("%s: %s, submitted again", job.title, outcome.reason)
            self.retries[job.title] = retries + 1
            self._submit_again(job)
        elif outcome.state == "done":
            self._log_done(job, outcome)
        else:
            seconds = f" ({outcome.seconds:.0f} s)" if outcome.seconds else ""
            logger.info("%s: failed, %s%s%s", job.title, outcome.reason, seconds, self._left())
            self._fail(job, str(outcome))

    def _log_done(self, job: Job, outcome: Outcome) -> None:
        result = job.result()
        if outcome.reason:
            logger.info("%s: %s, %s", job.title, result, outcome.reason)
        else:
            self.times.append(outcome.seconds)
            left = self._left()
            logger.info("%s: %s (%.0f s)%s", job.title, result, outcome.seconds, left)

    def _fail(self, job: Job, why: str) -> None:
        """Note a failure, with those of the jobs that need this one."""
        self.failures[job.title] = why
        self.submit(self._withdraw_dependents(job))

    def _submit_again(self, job: Job) -> None:
        dependents = self._withdraw_dependents(job)
        self.submit([job])
        self.submit(dependents)

    def _withdraw_dependents(self, job: Job) -> list[Job]:
        """Cancel the jobs that need one that has not ended as "done", and return them."""
        handles = [handle for handle, other in self.pending.items() if job.title in other.needs]
        self.launcher.cancel(handles)
        return [self.pending.pop(handle) for handle in handles]

    def _left(self) -> str:
        """Estimate the time of the other jobs from those that have finished."""
        waiting = len(self.pending) - len(self.started)
        if not self.times or not self.pending:
            return ""
        mean, now = sum(self.times) / len(self.times), time.monotonic()
        running = [max(mean - (now - start), 0.0) for start in self.started.values()]
        ends = [0.0] * (self.slots - len(running)) + running
        heapq.heapify(ends)
        for _ in range(waiting):
            heapq.heapreplace(ends, ends[0] + mean)
        return f", left about {timedelta(seconds=round(max(ends)))}"

"""Jobs of a sweep, from submission to outcome."""

import logging
import time
from collections.abc import Sequence

from . import processes
from .job import ELSEWHERE, Job, Outcome
from .launchers import Handle, Launcher
from .progress import Progress, ProgressLine, duration, estimate

logger = logging.getLogger(__name__)

SEEN_SECONDS = 60.0  # in which a machine sees the files that another writes on a shared disk


class Tracker:
    """Submits jobs to a launcher, and those again that were lost; logs their outcomes.

    Attributes:
        failures: title of a job that has failed -> the reason.
        done: number of finished runs.
    """

    def __init__(self, launcher: Launcher, line: ProgressLine, runs: set[str], done: int):
        """Begin without jobs.

        Args:
            launcher: trains them.
            line: shows the progress.
            runs: titles of all runs.
            done: number of those that are finished.
        """
        self.launcher, self.line, self.runs, self.done = launcher, line, runs, done
        self.pending: dict[Handle, Job] = {}
        self.elsewhere: list[Job] = []  # that other processes train
        self.failures: dict[str, str] = {}
        self.times: list[float] = []
        self.started: dict[str, float] = {}  # title of a running job -> time of its start
        self.slots = 1  # jobs that have run at once
        self.retries: dict[str, int] = {}
        self.seen_until: dict[str, float] = {}  # title -> time by which its result must be seen
        self.next_look = 0.0  # time at which the jobs elsewhere are looked at

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
            with processes.delayed_signals():  # a job that is submitted can be canceled
                self.pending |= zip(self.launcher.submit(group, after), group, strict=True)

    def wait(self) -> None:
        """Wait until all jobs have ended, and log their outcomes."""
        while self.pending or self.elsewhere:
            for handle, job in list(self.pending.items()):
                if handle in self.pending:  # else canceled since, without its teacher
                    self._look(handle, job)
            self._look_elsewhere()
            self.line.show(self.progress())
            time.sleep(self.launcher.poll_seconds)

    def cancel(self) -> None:
        """Cancel what has not ended."""
        self.launcher.cancel(list(self.pending))

    def _look(self, handle: Handle, job: Job) -> None:
        outcome = self.launcher.outcome(handle)
        if outcome is None:
            is_running = self.launcher.state(handle) == "running"
        else:
            is_running = outcome.seconds > 0
        if not is_running:  # or not any more, as a job that its cluster has requeued
            self.started.pop(job.title, None)
        elif job.title not in self.started:
            logger.info("%s: started", job.title)
            self.started[job.title] = time.monotonic()
            self.slots = max(self.slots, len(self.started))
        if outcome is not None and self._is_seen(job, outcome):
            del self.pending[handle]
            self.started.pop(job.title, None)
            self._finish(job, outcome)

    def _is_seen(self, job: Job, outcome: Outcome) -> bool:
        """Return False while this machine does not see the result that another has written."""
        if outcome.state != "done" or job.result() is not None:
            return True
        end = self.seen_until.setdefault(job.title, time.monotonic() + SEEN_SECONDS)
        return time.monotonic() > end

    def _look_elsewhere(self) -> None:
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + 5 * self.launcher.poll_seconds
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
        elif outcome.state == "done" and job.result() is None:
            self._fail(job, f"done, but this machine does not see a result in {job.folder}")
        elif outcome.state == "done":
            self._log_done(job, outcome)
        else:
            seconds = f" ({outcome.seconds:.0f} s)" if outcome.seconds else ""
            logger.info("%s: failed, %s%s%s", job.title, outcome.reason, seconds, self._left())
            self._fail(job, str(outcome))

    def _log_done(self, job: Job, outcome: Outcome) -> None:
        self.done += job.title in self.runs
        result = job.result()
        if outcome.reason:
            logger.info("%s: %s, %s", job.title, result, outcome.reason)
        else:
            self.times += [outcome.seconds] * (job.title in self.runs)
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

    def progress(self) -> Progress:
        """Return the numbers of the runs, and the time left by that of those that have ended."""
        active = self.started.keys() | {job.title for job in self.elsewhere}
        others = len((self.failures.keys() | active) & self.runs)
        left = len(self.runs) - self.done - others
        seconds = None
        if self.pending or self.elsewhere:
            now = time.monotonic()
            running = [now - start for start in self.started.values()]
            seconds = estimate(self.times, running, left, self.slots)
        return Progress(self.done, len(active), len(self.failures), left, seconds)

    def _left(self) -> str:
        seconds = self.progress().seconds
        return "" if seconds is None else f", left about {duration(seconds)}"

"""SLURM's queue of jobs, read by squeue: it needs no accounting database, unlike sacct."""

import logging
import subprocess
import time
from collections.abc import Iterable
from typing import ClassVar

from eakd_det.utils.errors import UserError

logger = logging.getLogger(__name__)

QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
RUNNING = {
    *("CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING"),
    *("RESIZING",),
}
UNKNOWN = "UNKNOWN"  # SLURM forgets a job some minutes after its end


class Queue:
    """States of jobs.

    Attributes:
        seconds: time between two calls of squeue.
    """

    seconds: ClassVar[float] = 10.0

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, str]] = {}
        self._read_at = -self.seconds

    def add(self, ids: Iterable[str]) -> None:
        """Add jobs that have just been submitted."""
        self._states |= {job: ("PENDING", "") for job in ids}

    def find(self, ids: Iterable[str]) -> None:
        """Add jobs that may have ended long ago.

        Raises:
            UserError: squeue fails.
        """
        self._states |= {job: (UNKNOWN, "") for job in ids if job not in self._states}
        try:
            self._read()
        except subprocess.CalledProcessError as error:
            raise UserError(f"squeue fails: {error.stderr.strip()}") from error

    def state(self, job: str) -> tuple[str, str]:
        """Return the state of a job, and the reason for it; both as squeue prints them."""
        if time.monotonic() >= self._read_at + self.seconds:
            try:
                self._read()
            except subprocess.CalledProcessError as error:
                logger.warning("squeue fails, it is called again: %s", error.stderr.strip())
        return self._states[job]

    def has_ended(self, job: str) -> bool:
        """Return whether a job has ended and will not be requeued."""
        return self.state(job)[0] not in QUEUED | RUNNING

    def cancel(self, ids: Iterable[str]) -> bool:
        """Cancel those jobs that have not ended; return False, with a warning, if scancel fails."""
        left = [job for job in ids if not self.has_ended(job)]
        if not left:
            return True
        command = ["scancel", "--quiet", *left]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            why, call = done.stderr.strip(), " ".join(["scancel", *left])
            logger.warning("scancel fails: %s. The jobs go on. To cancel them: %s", why, call)
        return done.returncode == 0

    def _read(self) -> None:
        self._read_at = time.monotonic()
        lines = squeue("--me", "--array", "--states=all", "--format=%i|%T|%r").splitlines()
        found = {job: (state, reason) for job, state, reason in (x.split("|", 2) for x in lines)}
        for job in self._states:  # an array that never started is one entry, without indices
            array = job.partition("_")[0]
            self._states[job] = found.get(job) or found.get(array) or (UNKNOWN, "")


def squeue(*arguments: str) -> str:
    """Return what squeue prints; raise CalledProcessError if SLURM does not answer."""
    command = ["squeue", "--noheader", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout

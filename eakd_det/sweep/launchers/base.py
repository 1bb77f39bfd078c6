"""The interface that a sweep has to the engine that trains its jobs."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import ClassVar

from eakd_det.sweep.job import Job, Outcome

Handle = Hashable  # of a submitted job; each launcher has its own


class Launcher(ABC):
    """Engine that trains the jobs of a sweep, each by `eakd_det.sweep.job.train`.

    Attributes:
        poll_seconds: time between two calls of `outcome` for a job.
        retries: times that a job which ends as "stopped", because it was killed or its machine was
            lost, is submitted again.
        outlives: jobs go on without the process that has submitted them.
    """

    poll_seconds: ClassVar[float] = 2.0
    retries: ClassVar[int] = 3
    outlives: ClassVar[bool] = False

    @abstractmethod
    def submit(self, jobs: Sequence[Job], after: Sequence[Handle] = ()) -> list[Handle]:
        """Submit jobs, which start in this order as far as they do not run at the same time.

        Args:
            jobs: have the same number of `gpus`.
            after: of this launcher; no job starts before all of them have ended as "done".

        Returns:
            The handle of each job.
        """

    @abstractmethod
    def outcome(self, handle: Handle) -> Outcome | None:
        """Return the outcome of a job, or None while it has not ended; never wait.

        A job that was lost with its machine, or was canceled, is "stopped".
        """

    @abstractmethod
    def state(self, handle: Handle) -> str:
        """Return "queued" or "running" for a job that has not ended."""

    @abstractmethod
    def cancel(self, handles: Sequence[Handle]) -> None:
        """End the jobs that have not ended; those that run save a checkpoint first."""

    @abstractmethod
    def close(self) -> None:
        """Free what this process holds of the engine.

        Jobs that have not ended and are not canceled go on, unless this process trains them.
        """

"""Jobs on this machine, several at once."""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import ClassVar

from eakd_det.sweep import processes
from eakd_det.sweep.job import Job, Outcome, train

from .base import Handle, Launcher


class Local(Launcher):
    """Trains up to `jobs` jobs at once, which share the cores and take turns on the GPUs."""

    poll_seconds: ClassVar[float] = 0.1
    retries: ClassVar[int] = 0  # what is killed here would be killed again, for its memory

    def __init__(self, jobs: int):
        self._jobs = jobs
        self._slots = deque(range(jobs))
        self._waiting: list[_Task] = []
        self._tasks: list[_Task] = []
        self._lock = threading.RLock()

    def submit(self, jobs: Sequence[Job], after: Sequence[Handle] = ()) -> list[Handle]:
        with self._lock:
            tasks = [_Task(job, after) for job in jobs]
            self._waiting += tasks
            self._tasks += tasks
            self._fill()
        return tasks

    def outcome(self, handle: Handle) -> Outcome | None:
        return handle.future.result() if handle.future.done() else None

    def state(self, handle: Handle) -> str:
        return "running" if handle.future.running() else "queued"

    def cancel(self, handles: Sequence[Handle]) -> None:
        with self._lock:
            for task in handles:
                task.stop.set()
                if task in self._waiting:
                    self._waiting.remove(task)
                    task.future.set_result(Outcome("stopped", "not started"))

    def close(self) -> None:
        self.cancel(self._tasks)
        for task in self._tasks:
            if task.thread is not None:
                task.thread.join()

    def _fill(self) -> None:
        """Start what may start, in the order of submission, while there are slots."""
        for task in [task for task in self._waiting if task.is_ready()]:
            if not self._slots:
                return
            self._waiting.remove(task)
            task.future.set_running_or_notify_cancel()
            task.thread = threading.Thread(target=self._train, args=(task, self._slots.popleft()))
            task.thread.start()

    def _train(self, task: "_Task", slot: int) -> None:
        try:
            environment = processes.share(self._jobs, slot, task.job.gpus)
            task.future.set_result(train(task.job, environment, task.stop))
        except BaseException as error:  # raised where the outcome is read
            task.future.set_exception(error)
        with self._lock:
            self._slots.append(slot)
            self._fill()


class _Task:
    """A submitted job, the handle of it."""

    def __init__(self, job: Job, after: Sequence["_Task"]):
        self.job, self.after = job, after
        self.future: Future[Outcome] = Future()
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None

    def is_ready(self) -> bool:
        futures = [task.future for task in self.after]
        return all(
            f.done() and f.exception() is None and f.result().state == "done" for f in futures
        )

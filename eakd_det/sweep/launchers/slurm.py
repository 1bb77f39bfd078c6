"""Jobs on a SLURM cluster, submitted by submitit: each is one task of an array.

A job does not depend on the sweep that has submitted it: SLURM starts it after the teachers that it
needs, and requeues it when its time limit is near, when it is preempted, or when its machine or its
process is lost. It then goes on from its checkpoints.
"""

import logging
import os
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from eakd_det.sweep import processes
from eakd_det.sweep.job import Job, Outcome
from eakd_det.sweep.origin import content_of
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json, write_json

from . import slurm_options, slurm_script
from .base import Handle, Launcher

try:
    import submitit
except ModuleNotFoundError as error:
    raise UserError(
        "--launcher slurm needs submitit: pip install -r requirements/cluster.txt"
    ) from error

from .slurm_queue import QUEUED, UNKNOWN, Queue
from .slurm_task import Task, outcome_file

logger = logging.getLogger(__name__)

RECORD = "jobs.json"  # folder of a training -> id of its job, and a hash of what is trained
TIME_LIMITS = 1000  # times that a job is requeued, each time from a newer checkpoint
COMMANDS = ("sbatch", "scancel", "sinfo", "squeue", "srun")


class Slurm(Launcher):
    """Submits jobs to the cluster of this machine.

    Attributes:
        file_seconds: time in which a file that another machine has written is seen here.
    """

    file_seconds: ClassVar[float] = 60.0
    outlives: ClassVar[bool] = True

    def __init__(self, options: dict[str, str], folder: Path):
        """Check the options and the cluster.

        Args:
            options: of --slurm.
            folder: for logs, ids and outcomes; all machines of the cluster see it.
        """
        self._options, self._parallelism = slurm_options.check(options)
        self._folder = folder.absolute()
        self._queue = self._open_queue()
        self._ended_at: dict[Handle, float] = {}

    def submit(self, jobs: Sequence[Job], after: Sequence[Handle] = ()) -> list[Handle]:
        handles = self._submitted_before(jobs)
        new = [job for job in jobs if str(job.folder) not in handles]
        if new:
            ids = self._submit(new, [str(handle) for handle in after])
            entries = {
                str(job.folder): {"id": handle, "content": self._content(job)}
                for job, handle in zip(new, ids, strict=True)
            }
            # Read again: other sweeps into the folder may have submitted jobs.
            write_json(self._folder / RECORD, read_json(self._folder / RECORD) | entries)
            handles |= {folder: entry["id"] for folder, entry in entries.items()}
            last = f" to {ids[-1]}" if len(ids) > 1 else ""
            logger.info("SLURM: submitted job %s%s, logs in %s", ids[0], last, self._folder)
        return [handles[str(job.folder)] for job in jobs]

    def outcome(self, handle: Handle) -> Outcome | None:
        job = str(handle)
        if not self._queue.has_ended(job):
            return None
        ended_at = self._ended_at.setdefault(handle, time.monotonic())
        if found := read_json(self._folder / outcome_file(job)):
            return Outcome(**found)
        state, reason = self._queue.state(job)
        is_late = time.monotonic() >= ended_at + self.file_seconds
        if state in ("COMPLETED", "FAILED", UNKNOWN) and not is_late:
            return None
        return self._lost(job, state, reason)

    def state(self, handle: Handle) -> str:
        return "queued" if self._queue.state(str(handle))[0] in QUEUED else "running"

    def cancel(self, handles: Sequence[Handle]) -> None:
        if not self._queue.cancel([str(handle) for handle in handles]):
            return
        noted = read_json(self._folder / RECORD)
        kept = {folder: entry for folder, entry in noted.items() if entry["id"] not in handles}
        if kept != noted:
            write_json(self._folder / RECORD, kept)

    def close(self) -> None:
        pass

    def _submitted_before(self, jobs: Sequence[Job]) -> dict[str, Handle]:
        """Return folder -> handle of the jobs that were submitted before and have not ended.

        Jobs with another config or other options are canceled.

        Raises:
            UserError: squeue or scancel fails.
        """
        noted = read_json(self._folder / RECORD)
        found: dict[str, Handle] = {}
        entries = [(job, noted[str(job.folder)]) for job in jobs if str(job.folder) in noted]
        if entries:
            self._queue.find(entry["id"] for _, entry in entries)
        for job, entry in entries:
            if self._queue.has_ended(entry["id"]):
                continue
            if entry["content"] == self._content(job):
                logger.info("%s: job %s, submitted before", job.title, entry["id"])
                found[str(job.folder)] = entry["id"]
            else:
                if not self._queue.cancel([entry["id"]]):
                    raise UserError(
                        f"{job.title}: job {entry['id']} is of another config or other "
                        "options, and is not canceled; cancel it before you start the sweep again."
                    )
                what = "had another config or other options, canceled"
                logger.info("%s: job %s %s", job.title, entry["id"], what)
        return found

    def _content(self, job: Job) -> str:
        """Hash what a job trains, as far as it is known when it is submitted, and its options."""
        options = self._options, self._parallelism
        return content_of([job.command, job.directory, job.content, options])

    def _submit(self, jobs: Sequence[Job], after: Sequence[str]) -> list[str]:
        """Submit jobs as one array; return their ids."""
        self._folder.mkdir(parents=True, exist_ok=True)
        tasks = [Task(job, str(self._folder)) for job in jobs]
        executor = self._executor(jobs[0].gpus, after)
        try:
            with slurm_script.calling_sbatch():
                ids = [job.job_id for job in executor.submit_array(tasks)]
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"sbatch refuses the jobs: {error}\n{slurm_options.NAMES}") from error
        self._queue.add(ids)
        return ids

    def _lost(self, job: str, state: str, reason: str) -> Outcome:
        """Return the outcome of a job that has left none."""
        if state == "CANCELLED" and reason == "DependencyNeverSatisfied":
            return Outcome("stopped", "not started without its teacher")
        if state == "CANCELLED":
            return Outcome("failed", f"job {job} was canceled")
        paths = submitit.core.utils.JobPaths(self._folder, job)
        output = processes.tail(str(paths.stderr)) if paths.stderr.exists() else ""
        if state == "OUT_OF_MEMORY":
            return Outcome("failed", "out of memory: ask for more with --slurm mem=...", output)
        how = "failed" if paths.result_pickle.exists() else "stopped"  # by an error of the worker
        return Outcome(how, f"job {job} has ended as {state}", output)

    def _open_queue(self) -> Queue:
        if missing := [command for command in COMMANDS if not shutil.which(command)]:
            raise UserError(
                f"--launcher slurm: this machine has no command {' and no '.join(missing)}. Start "
                "the sweep on a login node of the cluster."
            )
        return Queue()

    def _executor(self, gpus: int, after: Sequence[str]) -> submitit.Executor:
        """Build submitit's executor for jobs of `gpus` processes that start after others."""
        options = slurm_options.complete(self._options, gpus)
        if left := [job for job in after if self._queue.state(job)[0] != "COMPLETED"]:
            options |= {"dependency": f"afterok:{':'.join(left)}", "kill-on-invalid-dep": "yes"}
        path = f"export PYTHONPATH={shlex.quote(os.environ.get('PYTHONPATH', ''))}"
        executor = submitit.SlurmExecutor(self._folder, max_num_timeout=TIME_LIMITS)
        executor.update_parameters(
            job_name="eakd-sweep",
            array_parallelism=self._parallelism or 100_000,
            setup=[path, *slurm_script.BEFORE],
            teardown=slurm_script.AFTER,
            additional_parameters=options,
        )
        return executor

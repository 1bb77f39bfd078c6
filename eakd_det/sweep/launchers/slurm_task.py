"""Part of the SLURM launcher that runs on the cluster's machines."""

import logging
import signal
import subprocess
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import submitit

from eakd_det.sweep import processes
from eakd_det.sweep.job import Job, train
from eakd_det.utils.files import write_json

from .slurm_options import SIGNAL
from .slurm_queue import squeue

logger = logging.getLogger(__name__)

GRACE = 3600  # seconds to save; SLURM itself kills a process that does not end in time
KILLS = 3  # times that a job is requeued after its process was killed


@dataclass
class Task:
    """Training of a job, as submitit pickles it for the machine that is to run it.

    Attributes:
        folder: of `Slurm`.
        kills: times that the training was killed.
    """

    job: Job
    folder: str
    kills: int = 0

    def __call__(self) -> None:
        """Train the job and write its outcome, or requeue it.

        Raises:
            SystemExit: the training has not ended as "done"; jobs that need it do not start.
        """
        stop = threading.Event()
        environment = submitit.JobEnvironment()
        number = signal.Signals[f"SIG{SIGNAL}"]
        requeue = signal.getsignal(number)  # submitit's handler, which calls checkpoint()
        for each in (signal.SIGTERM, number):
            signal.signal(each, lambda *_: stop.set())
        variables = processes.share(1, 0, self.job.gpus)
        variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(GRACE)  # that torchrun gives its workers
        outcome = train(self.job, variables, stop, grace=GRACE)
        if outcome.state == "stopped":
            self.kills += not stop.is_set()
            if self.kills <= KILLS:
                try:
                    if _is_running(environment):  # else canceled, or requeued already
                        requeue(number, None)
                except subprocess.CalledProcessError:  # the batch script tries again
                    logger.exception("SLURM does not answer")
                raise SystemExit(128 + signal.SIGTERM)
            outcome = replace(
                outcome, state="failed", reason=f"{outcome.reason}, {self.kills} times"
            )
        write_json(Path(self.folder, outcome_file(environment.job_id)), asdict(outcome))
        if outcome.state == "failed":
            raise SystemExit(1)

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Return what the requeued job runs; the training has ended and saved its state."""
        return submitit.helpers.DelayedSubmission(self)


def outcome_file(job: str) -> str:
    """Return the name of the file with a job's outcome."""
    return f"{job}_outcome.json"


def _is_running(environment: submitit.JobEnvironment) -> bool:
    """Return whether SLURM regards this job as running, although its training was stopped.

    That is so near the time limit, and for a preempted job in its time of grace: it would not be
    requeued if it just exited.
    """
    if environment.cluster != "slurm":
        return True
    return squeue("--jobs", environment.job_id, "--format=%T").strip() == "RUNNING"

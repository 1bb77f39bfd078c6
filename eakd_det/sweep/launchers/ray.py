"""Jobs as tasks of Ray, on a running cluster or on this machine."""

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from eakd_det.sweep import processes
from eakd_det.sweep.job import Job, Outcome, train
from eakd_det.utils.errors import UserError

from .base import Handle, Launcher

logger = logging.getLogger(__name__)

CANCEL_SECONDS = processes.STOP_SECONDS + 5  # that the tasks of canceled jobs have to end
STORE_BYTES = 100_000_000  # for Ray's objects, which here are small


class Ray(Launcher):
    """Trains each job as a task with a GPU of a cluster for each process of the job.

    Where the cluster has no GPUs, processes use its CPUs. Each takes OMP_NUM_THREADS of them, one
    if that is not set.
    """

    def __init__(self, address: str):
        """Connect to a cluster, or start one on this machine that `close` ends.

        Args:
            address: of a cluster, as "auto", "HOST:PORT" or "ray://HOST:PORT"; empty to start one.

        Raises:
            UserError: Ray is not installed, or no cluster can be reached there.
        """
        if importlib.util.find_spec("ray") is None:
            raise UserError(
                "--launcher ray: the package ray is not installed; pip install ray "
                "(requirements/cluster.txt)."
            )
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if address:  # an attempt takes 40 seconds, of which Ray makes 20 unless told otherwise
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
        import ray

        self._ray, self._address, self._jobs = ray, address, {}
        self._connect()
        total = ray.cluster_resources()
        self._has_gpus = total.get("GPU", 0) > 0
        counts = [f"{total.get(name, 0):.0f} {name}s" for name in ("CPU", "GPU")]
        logger.info("Ray: %s", " and ".join(counts))

    def _connect(self) -> None:
        """Call ray.init, without telemetry, a dashboard and lines on the terminal."""
        ray, address = self._ray, self._address
        local = {} if address else {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        handler = signal.getsignal(signal.SIGTERM)  # ray.init sets another
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if not address:
                raise
            raise UserError(
                f"--ray-address {address}: {error}. It needs a running cluster with this version "
                "of Python and Ray, and RAY_AUTH_MODE=token if that wants a token."
            ) from error
        finally:
            signal.signal(signal.SIGTERM, handler)
        ray._private.worker._worker_logs_enabled = False  # the sweep logs lost workers itself

    def submit(self, jobs: Sequence[Job], after: Sequence[Handle] = ()) -> list[Handle]:
        handles = [self._task(job).remote(job, *after) for job in jobs]
        self._jobs |= zip(handles, jobs, strict=True)
        return handles

    def outcome(self, handle: Handle) -> Outcome | None:
        errors = self._ray.exceptions
        if not self._ray.wait([handle], timeout=0)[0]:
            return None
        try:
            return self._ray.get(handle)
        except errors.TaskCancelledError:
            return Outcome("stopped", "canceled")
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            return Outcome("stopped", f"lost by Ray ({type(error).__name__})")
        except errors.RayError as error:
            return Outcome("failed", "error in a worker of Ray", str(error))

    def state(self, handle: Handle) -> str:
        try:
            return "running" if self._jobs[handle].lock().is_held() else "queued"
        except UserError:  # with which the job fails, too, when it is started
            return "queued"

    def cancel(self, handles: Sequence[Handle]) -> None:
        for handle in handles:
            self._ray.cancel(handle)
        self._ray.wait(list(handles), num_returns=len(handles), timeout=CANCEL_SECONDS)

    def close(self) -> None:
        self._ray.shutdown()

    def _task(self, job: Job) -> Any:
        """Return `_train` as a task with the resources of a job's processes on one machine.

        A lost task is not tried again by Ray, which does so without end after lack of memory; the
        sweep submits it again.
        """
        threads = os.environ.get("OMP_NUM_THREADS", "1")
        needs = {"CPU": job.gpus * int(threads), "GPU": job.gpus if self._has_gpus else 0}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(node.get(x, 0) >= needs[x] for x in needs) for node in nodes):
            what = f"{needs['CPU']} CPUs and {needs['GPU']} GPUs, as each run takes"
            if not self._address:
                raise UserError(f"--launcher ray: this machine does not have {what}.")
            logger.warning("Ray: no machine has %s; the runs wait for such a machine", what)
        variables = {"OMP_NUM_THREADS": threads, "PYTHONPATH": os.environ["PYTHONPATH"]}
        return self._ray.remote(_train).options(
            name=job.title,
            num_cpus=needs["CPU"],
            num_gpus=needs["GPU"],
            max_retries=0,
            runtime_env={"env_vars": variables},
        )


def _train(job: Job, *after: Outcome) -> Outcome:
    """Train a job in the main thread of a worker, in which ray.cancel raises SIGINT."""
    if any(outcome.state != "done" for outcome in after):
        return Outcome("stopped", "not started without its teacher")
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        return train(job, dict(os.environ), stop)
    finally:
        signal.signal(signal.SIGINT, before)

"""Restarts of a run by torchrun, and its continuation with another number of processes."""

import argparse
import logging
import os
import socket
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from detectron2.utils import comm
from torch import distributed

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import make_folder

from .run_record import add_to_record, read_record

logger = logging.getLogger(__name__)

SHARED_SECONDS = 90  # NFS may keep for a minute that a folder does not exist
POLL_SECONDS = 0.5
RESTARTED = "torchrun has started the processes again: the run goes on %s."


def launch_identity() -> str:
    """Return the identity of the torchrun agent that started this process; empty without one.

    It is the folder of the agent's logs, of which each agent makes one of a random name for all its
    attempts. Unlike a --rdzv-id it is not the same in a later launch of the same command.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE", "")  # LOGS/ATTEMPT/RANK/error.json
    return f"{socket.gethostname()}:{Path(file).parents[2]}" if file else ""


def is_restart(output_dir: str) -> bool:
    """Return True if this start continues the run that the same launch by torchrun started.

    This is so if one at least of the agents that run now is among those that run.json recorded
    last; others may have joined or left. Each process of a connected group calls it, and all have
    the first one's answer. Before the processes are connected, the answer on several machines is
    True if any launch by torchrun is recorded; decide again afterwards.
    """
    starts = read_record(output_dir).get("starts", [])
    recorded = next((x["launch"] for x in reversed(starts) if "launch" in x), [])
    if not _is_connected() and int(os.environ.get("GROUP_WORLD_SIZE", 1)) > 1:
        return bool(recorded)
    seen = comm.all_gather((launch_identity(), recorded))
    return any(agent in seen[0][1] for agent, _ in seen)


def continued(args: argparse.Namespace, output_dir: str) -> argparse.Namespace:
    """Return the arguments of a training's start; those of a restart have `resume` set.

    A restart neither refuses nor removes the run that its own launch has begun.
    """
    if not is_restart(output_dir):
        return args
    return argparse.Namespace(**{**vars(args), "resume": True, "overwrite": False})


def log_restart(output_dir: str) -> None:
    """Log the continuation of a run whose processes torchrun has started again."""
    if is_restart(output_dir):
        has_saved = os.path.exists(os.path.join(output_dir, "last_checkpoint"))
        begin = "from its newest checkpoint" if has_saved else "at iteration 0: nothing is saved"
        logger.warning(RESTARTED, begin)


def record_launch(output_dir: str) -> None:
    """Record the agents of this launch in the last start of run.json; each process calls it.

    To be called when nothing of an earlier run is left in the folder that a restart must not
    continue: after --overwrite has removed it.
    """
    agents = sorted({agent for agent in comm.all_gather(launch_identity()) if agent})
    if not (agents and output_dir and comm.is_main_process()):
        return
    *earlier, last = read_record(output_dir)["starts"]
    add_to_record(output_dir, starts=[*earlier, {**last, "launch": agents}])


def changed_start(output_dir: str, *, resume: bool) -> dict[str, Any] | None:
    """Return the record of a resumed run's first start if it had another number of processes."""
    starts = read_record(output_dir).get("starts", []) if resume else []
    first = comm.all_gather(starts[:1])[0]
    return first[0] if first and first[0]["processes"] != comm.get_world_size() else None


def describe_changes(first: dict[str, Any], changes: dict[str, tuple[Any, Any]]) -> str:
    """Return a sentence about the settings that another number of processes changes.

    Args:
        first: of `changed_start`.
        changes: key -> value of the config and of this start; equal ones are left out.
    """
    changed = [f"{key} is {new}, not {old}" for key, (old, new) in changes.items() if new != old]
    processes = f"The run began with {first['processes']} processes and has {comm.get_world_size()}"
    return f"{processes}: {'; '.join(changed) or 'its settings stay'}."


def check_shared(output_dir: str) -> None:
    """Check that every process sees the folder of the first one; log it on several machines.

    Each process of the group calls it. The folder is made if missing.

    Raises:
        UserError: a machine does not see it; in every process.
    """
    if comm.get_world_size() == 1 or not output_dir:
        return
    mark = Path(output_dir, f".shared-{comm.all_gather(uuid4().hex)[0]}")
    try:
        if comm.is_main_process():
            make_folder(output_dir)
            for left in Path(output_dir).glob(".shared-*"):  # by a start that was killed here
                left.unlink()
            mark.touch()
        comm.synchronize()
        blind = _wait_for(mark)
    finally:
        if comm.is_main_process():
            mark.unlink(missing_ok=True)
    hosts = list(dict.fromkeys(comm.all_gather(socket.gethostname())))
    if blind:
        raise UserError(
            f"OUTPUT_DIR {output_dir} of {hosts[0]} (the first process) is not seen by "
            f"{', '.join(blind)}, whose processes could not read its checkpoints: name a folder on "
            "a disk that all machines share."
        )
    if len(hosts) > 1:
        logger.info("OUTPUT_DIR %s is seen by all %d machines.", output_dir, len(hosts))


def _wait_for(mark: Path) -> list[str]:
    """Wait until all processes see a file; return the machines (and processes) that do not."""
    end = time.monotonic() + SHARED_SECONDS
    while True:
        name = f"{socket.gethostname()} (process {comm.get_rank()})"
        seen = comm.all_gather((name, mark.exists(), time.monotonic() > end))
        blind = [name for name, is_seen, _ in seen if not is_seen]
        if not blind or seen[0][2]:
            return blind
        time.sleep(POLL_SECONDS)


def changed_step(
    images: int, rate: float, processes: int, micro_batches: int
) -> tuple[int, int, float]:
    """Divide the images of a step among another number of processes than at a run's first start.

    A micro-batch of a process has at most the images that it had then.

    Args:
        images: of a step, over all processes and micro-batches, at the first start.
        rate: learning rate.
        processes: of this start.
        micro_batches: of a step over all processes at the first start.

    Returns:
        The images of a step (the given number, or the next smaller multiple of `processes`), the
        micro-batches of each process, and the learning rate, scaled with the images.

    Raises:
        UserError: there are more processes than images.
    """
    if processes > images:
        raise UserError(
            f"{processes} processes cannot share the {images} examples of a step: start "
            f"{images} or fewer."
        )
    share = images // processes
    most = max(images // micro_batches, 1)
    fewest = -(-share // most)
    accumulate = next(n for n in range(fewest, share + 1) if share % n == 0)
    return share * processes, accumulate, rate * (share * processes / images)


def _is_connected() -> bool:
    return distributed.is_available() and distributed.is_initialized()

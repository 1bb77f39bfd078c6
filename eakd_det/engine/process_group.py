"""Connection of a run's processes, and their time limit for one another."""

import os
from datetime import timedelta

import torch
from detectron2.utils import comm
from torch import distributed

from eakd_det.utils.errors import UserError

from .rendezvous import own_part

TIMEOUT = 1800  # seconds, the default
LONGEST = 30 * 24 * 3600


def connect_torchrun(*, is_on_gpu: bool, timeout: timedelta) -> None:
    """Connect this process of torchrun to the others.

    Args:
        is_on_gpu: the process has a GPU of its own, that of its number on the machine.
        timeout: time limit for one another.
    """
    store, rank, processes = next(distributed.rendezvous("env://", timeout=timeout))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = own_part(store, timeout)
    distributed.init_process_group(
        "nccl" if is_on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=processes,
        timeout=timeout,
    )
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    limit_exchanges(timeout)
    if is_on_gpu:
        torch.cuda.set_device(comm.get_local_rank())


def limit_exchanges(timeout: timedelta) -> None:
    """Give Detectron2's exchanges on the CPU the time limit of a group that is on GPUs.

    Detectron2 makes their group itself, with torch's own limit.
    """
    if distributed.is_initialized() and distributed.get_backend() == "nccl":
        group = distributed.new_group(backend="gloo", timeout=timeout)
        comm._get_global_gloo_group = lambda: group


def time_limit(seconds: float) -> timedelta:
    """Return DDP_TIMEOUT as a duration.

    Raises:
        UserError: it is not a number of seconds from 1 to LONGEST.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not (is_number and 1 <= seconds <= LONGEST):
        raise UserError(
            "DDP_TIMEOUT (in a Python config train.ddp_timeout) must be a number of seconds from "
            f"1 to {LONGEST}, not {seconds!r}."
        )
    return timedelta(seconds=seconds)

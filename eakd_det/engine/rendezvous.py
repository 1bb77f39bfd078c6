"""Store through which the processes of one attempt of torchrun connect to each other."""

import os
import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed import PrefixStore, Store, TCPStore

KEY = "eakd_det/rendezvous"
POLL_SECONDS = 0.05

_servers: list[TCPStore] = []  # of this process, as long as it runs


def own_part(store: Store, timeout: timedelta) -> PrefixStore:
    """Return the agent's store with a prefix for the keys of this attempt alone.

    torchrun's agent keeps its store for all attempts, and with it the addresses of processes that
    have died, to which processes would connect after a restart. The first process chooses the
    prefix and publishes it to the others.

    Args:
        store: of the agent, as `torch.distributed.rendezvous` opens it.
        timeout: time limit of the processes for one another.

    Raises:
        TimeoutError, torch.distributed.DistStoreError: another process has not started in time.
    """
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    name = uuid4().hex
    if rank == 0:
        publish(store, name, processes, timeout)
    else:
        name = request(store, rank)
    return PrefixStore(name, store)


def use_own_store(timeout: timedelta) -> None:
    """Set the environment so that the next process group uses a store of this attempt alone.

    For a group that another package initializes from the environment; see `own_part`. The first
    process starts a store at a free port of its machine; MASTER_PORT is set to it in each process.

    Args:
        timeout: time limit of the processes for one another.

    Raises:
        TimeoutError, torch.distributed.DistStoreError: another process has not started in time.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host = os.environ["MASTER_ADDR"]
    agent = TCPStore(host, int(os.environ["MASTER_PORT"]), is_master=False, timeout=timeout)
    if rank == 0:
        server = TCPStore(host, 0, is_master=True, multi_tenant=True, wait_for_workers=False)
        _servers.append(server)
        port = server.port
        publish(agent, str(port), processes, timeout)
    else:
        port = int(request(agent, rank))
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="False")


def publish(store: Store, value: str, processes: int, timeout: timedelta) -> None:
    """Send a value to the other processes of this attempt; return when each has received it.

    Requests of earlier attempts, which are still in the store, get it, too.

    Raises:
        TimeoutError: a process has not requested it within the time limit.
    """
    end, publication = time.monotonic() + timeout.total_seconds(), uuid4().hex
    waiting = set(range(1, processes))
    while waiting:
        for rank in sorted(waiting):
            key = f"{KEY}/request/{rank}"
            if store.check([key]):
                store.set(f"{KEY}/reply/{store.get(key).decode()}", f"{value} {publication}")
            if store.check([f"{KEY}/received/{publication}/{rank}"]):
                waiting.discard(rank)
        if time.monotonic() > end:
            raise TimeoutError(f"Processes {sorted(waiting)} have not started within {timeout}.")
        time.sleep(POLL_SECONDS)


def request(store: Store, rank: int) -> str:
    """Wait for the value that the first process of this attempt publishes, and return it."""
    identity = uuid4().hex
    store.set(f"{KEY}/request/{rank}", identity)
    value, publication = store.get(f"{KEY}/reply/{identity}").decode().split()
    store.set(f"{KEY}/received/{publication}/{rank}", "")
    return value

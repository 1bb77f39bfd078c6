"""Store by which the processes of one attempt of torchrun find each other."""

import os
import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed import PrefixStore, Store, TCPStore

KEY = "eakd_det/rendezvous"
POLL_SECONDS = 0.05

_servers: list[TCPStore] = []  # of this process, as long as it runs


def own_part(store: Store, timeout: timedelta) -> PrefixStore:
    """Return a part of the agent's store that this attempt alone uses.

    torchrun's agent keeps its store for all attempts, and with it the addresses of processes that
    have died, which the processes after a restart would try to reach. The first process chooses the
    part, of which the others learn under keys that no earlier attempt has used.

    Args:
        store: of the agent, as `torch.distributed.rendezvous` opens it.
        timeout: time limit of the processes for one another.

    Raises:
        TimeoutError, torch.distributed.DistStoreError: another process has not started in time.
    """
    rank, processes = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    name = uuid4().hex
    if rank == 0:
        offer(store, name, processes, timeout)
    else:
        name = ask(store, rank)
    return PrefixStore(name, store)


def use_own_store(timeout: timedelta) -> None:
    """Let the next process group of this process of torchrun use a store of this attempt alone.

    It is for a group that another package makes, from the environment; see `own_part`. The first
    process starts a store at a free port of its machine, and sets MASTER_PORT, as do the others.

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
        offer(agent, str(port), processes, timeout)
    else:
        port = int(ask(agent, rank))
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="False")


def offer(store: Store, word: str, processes: int, timeout: timedelta) -> None:
    """Answer every question for the word, those of earlier attempts too, until all have it.

    Raises:
        TimeoutError: a process has not asked within the time limit.
    """
    end, offered = time.monotonic() + timeout.total_seconds(), uuid4().hex
    waiting = set(range(1, processes))
    while waiting:
        for rank in sorted(waiting):
            question = f"{KEY}/question/{rank}"
            if store.check([question]):
                store.set(f"{KEY}/answer/{store.get(question).decode()}", f"{word} {offered}")
            if store.check([f"{KEY}/received/{offered}/{rank}"]):
                waiting.discard(rank)
        if time.monotonic() > end:
            raise TimeoutError(f"Processes {sorted(waiting)} have not started within {timeout}.")
        time.sleep(POLL_SECONDS)


def ask(store: Store, rank: int) -> str:
    """Return the word that the first process of this attempt offers, which is waited for."""
    own = uuid4().hex
    store.set(f"{KEY}/question/{rank}", own)
    word, offered = store.get(f"{KEY}/answer/{own}").decode().split()
    store.set(f"{KEY}/received/{offered}/{rank}", "")
    return word

import os
import threading
from datetime import timedelta

import pytest
from torch.distributed import TCPStore

from eakd_det.engine.rendezvous import KEY, own_part, publish, request, use_own_store

LIMIT = timedelta(seconds=20)


@pytest.fixture
def store():
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=LIMIT)


def test_processes_receive_the_value_of_their_own_attempt(store):
    """The store still holds requests of an earlier attempt, and the replies to them."""
    for rank in (1, 2):
        store.set(f"{KEY}/request/{rank}", f"dead{rank}")
        store.set(f"{KEY}/reply/dead{rank}", "1111 dead")
        store.set(f"{KEY}/received/dead/{rank}", "")
    first = threading.Thread(target=publish, args=(store, "2222", 3, LIMIT))
    first.start()
    received = [request(TCPStore("127.0.0.1", store.port), rank) for rank in (1, 2)]
    assert received == ["2222", "2222"]
    first.join(5)
    assert not first.is_alive()


def test_a_process_that_does_not_start(store):
    with pytest.raises(TimeoutError, match=r"Processes \[1\] have not started within 0:00:00.2"):
        publish(store, "2222", 2, timedelta(seconds=0.2))


def test_each_attempt_has_its_own_part_of_the_store(store, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    first, second = own_part(store, LIMIT), own_part(store, LIMIT)
    first.set("address", "dead")
    assert first.check(["address"]) and not second.check(["address"])


def test_a_store_for_one_process(store, monkeypatch):
    for name, value in {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        **{"RANK": "0", "WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
    }.items():
        monkeypatch.setenv(name, value)
    use_own_store(LIMIT)
    port = int(os.environ["MASTER_PORT"])
    assert port != store.port and os.environ["TORCHELASTIC_USE_AGENT_STORE"] == "False"
    TCPStore("127.0.0.1", port, is_master=False, timeout=LIMIT).set("a", "b")
    use_own_store(LIMIT)  # again: it has one
    assert int(os.environ["MASTER_PORT"]) == port

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eakd_det.utils import heartbeat
from eakd_det.utils.heartbeat import Heartbeat, read_holder, server_time


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(heartbeat, "CONFIRM_SECONDS", 0.1)
    return str(tmp_path / "running.json")


@pytest.fixture
def take(path):
    """Takes the heartbeat, which is released at the end."""
    taken = []

    def take(**how):
        own = Heartbeat(path)
        taken.append(own)
        return own, own.acquire(**{"is_alone": False, **how})

    yield take
    for own in taken:
        own.release()


def age(path, seconds):
    """Let the last beat be long ago."""
    os.utime(path, (time.time() - seconds,) * 2)


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_beats_until_it_is_released(path, take):
    own, is_taken = take()
    assert is_taken and read_holder(path).token == own.token
    age(path, 100)
    wait_until(lambda: server_time(os.path.dirname(path)) - read_holder(path).beat < 50)
    assert not take()[1] and not own.is_lost
    own.release()
    assert os.listdir(os.path.dirname(path)) == [] and take()[1]


def test_who_holds_it(path, take, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 100)
    take()
    holder = read_holder(path)
    assert str(holder) == f"process {os.getpid()} on {holder.host}"
    assert abs(holder.since - time.time()) < 60 and abs(holder.beat - time.time()) < 60
    age(path, 100)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert take()[1] and str(read_holder(path)) == f"job 42 on {holder.host}"


@pytest.mark.parametrize(
    ("kernel", "is_alone", "is_taken"),
    [("other", True, False), ("this", False, False), ("this", True, True)],
)
def test_a_young_heartbeat(path, take, monkeypatch, kernel, is_alone, is_taken):
    """On the same machine the system's lock shows that its holder is dead."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 100)
    monkeypatch.setattr(heartbeat, "_kernel", lambda: kernel)
    take()
    monkeypatch.setattr(heartbeat, "_kernel", lambda: "this")
    other, found = take(is_alone=is_alone)
    assert found == is_taken
    assert (read_holder(path).token == other.token) == is_taken


def test_of_many_one_takes_over(path, take, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 100)
    dead, _ = take()
    age(path, 61)
    barrier, found = threading.Barrier(16), []

    def run():
        barrier.wait()
        found.append(take()[1])

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == 1 and read_holder(path).token != dead.token
    assert os.listdir(os.path.dirname(path)) == ["running.json"]


def test_a_holder_whose_file_server_has_stalled(path, take, monkeypatch):
    """It beats again before it is taken over."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 100)
    take()
    age(path, 100)
    monkeypatch.setattr(heartbeat.time, "sleep", lambda _: os.utime(path))
    assert not take()[1]


def test_a_holder_that_did_not_beat_notices_that_it_has_lost(path, take, monkeypatch, caplog):
    own, _ = take()
    monkeypatch.setattr(heartbeat, "CONFIRM_SECONDS", 0.0)
    token = own.token
    wait_until(lambda: read_holder(path).token == token)
    monkeypatch.setattr(heartbeat, "DEAD_SECONDS", -1.0)  # any age is too much
    other, is_taken = take()
    assert is_taken
    wait_until(lambda: own.is_lost)
    wait_until(lambda: f"{path} is lost: another process trains there" in caplog.text)
    own.release()
    assert read_holder(path).token == other.token and not other.is_lost


def test_a_holder_that_was_killed_while_it_took_it(path, take):
    taking = Path(f"{path}.taking")
    taking.touch()
    assert not take()[1] and taking.exists()
    age(taking, 61)
    assert not take()[1] and not taking.exists()
    assert take()[1]


def test_a_training_keeps_the_heartbeat_of_a_killed_sweep(path, take, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 100)
    own, _ = take()
    age(path, 100)
    code = """
import time
from eakd_det.utils import heartbeat
heartbeat.BEAT_SECONDS = 0.05
import eakd_det.utils.before_torch
time.sleep(300)
"""
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **own.variable})
    try:
        wait_until(lambda: time.time() - read_holder(path).beat < 50)
    finally:
        process.kill()
        process.wait()

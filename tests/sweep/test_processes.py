import fcntl
import os
import signal
import sys
import time

import pytest

from eakd_det.sweep import processes


@pytest.mark.parametrize(
    ("visible", "gpus"), [(None, ["0", "1", "2", "0"]), ("5,3,GPU-a", ["5", "3", "GPU-a", "5"])]
)
def test_gpus_in_turn(monkeypatch, visible, gpus):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    environments = [processes.share(4, slot) for slot in range(4)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == gpus


def test_several_gpus_a_training(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    monkeypatch.setattr("joblib.cpu_count", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environments = [processes.share(2, slot, 2) for slot in range(3)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["4,5", "6,7", "4,5"]
    assert environments[0]["OMP_NUM_THREADS"] == "4"
    assert processes.share(1, 0, 8)["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"


@pytest.mark.parametrize(("jobs", "threads"), [(1, "8"), (3, "2"), (20, "1")])
def test_cores_are_shared(monkeypatch, jobs, threads):
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert processes.share(jobs, 0)["OMP_NUM_THREADS"] == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert processes.share(jobs, 0)["OMP_NUM_THREADS"] == "5"


def start(tmp_path, body):
    """A started script that has printed something; its log is locked while a process has it."""
    script, log = tmp_path / "script.py", tmp_path / "log.txt"
    script.write_text(body)
    with open(log, "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        process = processes.start([str(script)], f, dict(os.environ))
    deadline = time.monotonic() + 20
    while not log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process, log


def is_locked(path):
    with open(path) as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_stop_ends_a_process_and_those_that_it_started(tmp_path):
    body = """
import subprocess, time
subprocess.Popen(["sleep", "300"])
print("started", flush=True)
time.sleep(300)
"""
    process, log = start(tmp_path, body)
    assert is_locked(log)
    processes.stop([process])
    assert process.returncode == -signal.SIGTERM
    assert processes.describe_end(process.returncode) == "killed by SIGTERM"
    deadline = time.monotonic() + 10
    while is_locked(log):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    processes.stop([process])  # of what has ended already nothing is left to do


def test_sigusr1_does_not_end_what_has_no_handler(tmp_path):
    """SLURM sends it to torchrun, too, which would leave its workers behind."""
    body = """
import os, signal
os.kill(os.getpid(), signal.SIGUSR1)
print("alive", flush=True)
signal.pause()
"""
    process, _ = start(tmp_path, body)
    processes.stop([process])
    assert process.returncode == -signal.SIGTERM


def test_torchrun_has_the_time_to_end_its_workers():
    assert processes.STOP_SECONDS > 30


def test_stop_kills_what_does_not_obey(tmp_path):
    body = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(300)
"""
    process, _ = start(tmp_path, body)
    processes.stop([process], 0.3)
    assert process.returncode == -signal.SIGKILL


def test_the_tail_of_a_log(tmp_path):
    path = tmp_path / "log.txt"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(50)) + b"\xff last")
    lines = processes.tail(str(path)).splitlines()
    assert lines[0] == f"{path} ends with"
    assert lines[1:] == [*(f"    {i}" for i in range(43, 50)), "    � last"]
    assert processes.describe_end(2) == "exit code 2"


@pytest.mark.skipif(sys.platform != "linux", reason="a signal of Linux")
def test_a_process_saves_and_ends_when_its_parent_is_killed(tmp_path):
    """It would hold the lock of its folder, for which the job waits that is started again."""
    body = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("saved")))
os.kill(os.getppid(), signal.SIGKILL)
print("killed", flush=True)
time.sleep(300)
"""
    script, log = tmp_path / "script.py", tmp_path / "log.txt"
    script.write_text(body)
    parent = os.fork()
    if not parent:
        with open(log, "w") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            processes.start([str(script)], f, dict(os.environ)).wait()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while is_locked(log):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert log.read_text().endswith("saved\n")

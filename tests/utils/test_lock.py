import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from classification.config import load_config
from classification.run import fit_teacher
from eakd_det.sweep import processes
from eakd_det.utils import heartbeat
from eakd_det.utils.heartbeat import read_holder
from eakd_det.utils.lock import Lock, run_lock

HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(300)
"""


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "runs" / "teacher")


def is_locked(folder):
    with open(f"{folder}.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.fixture
def held(folder, monkeypatch):
    """Let another holder keep the lock until the third attempt to acquire it; call `then`."""

    def hold(then):
        os.makedirs(os.path.dirname(folder))
        other, polls = open(f"{folder}.lock", "a"), []  # noqa: SIM115  (closed below)
        fcntl.flock(other, fcntl.LOCK_EX)

        def sleep(_):
            polls.append(None)
            if len(polls) == 3:
                then()
                other.close()

        monkeypatch.setattr("eakd_det.utils.lock.time.sleep", sleep)
        return polls

    return hold


def test_one_at_a_time(folder, held, caplog):
    polls = held(lambda: None)
    with run_lock(f"{folder}/"):
        assert is_locked(folder)
    assert len(polls) == 3 and not is_locked(folder)
    assert caplog.messages == [f"Another process trains {folder}/: waiting until it ends"]
    with pytest.raises(KeyError), run_lock(folder):
        raise KeyError
    assert not is_locked(folder)
    with run_lock(folder):
        pass
    assert len(caplog.messages) == 1


def test_the_end_of_a_process_frees_its_lock(folder, tmp_path):
    os.makedirs(os.path.dirname(folder))
    command = [sys.executable, "-c", HOLDER, f"{folder}.lock"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n" and is_locked(folder)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with run_lock(folder):
        pass


def test_a_child_keeps_the_lock_that_it_was_given(folder, tmp_path):
    with open(tmp_path / "log.txt", "w") as log, run_lock(folder) as lock:
        code = "import time; time.sleep(300)"
        process = processes.start(["-c", code], log, dict(os.environ), keep=(lock.file,))
    assert is_locked(folder)
    processes.stop([process])
    assert not is_locked(folder)


@pytest.fixture(autouse=True)
def confirmed_soon(monkeypatch):
    monkeypatch.setattr(heartbeat, "CONFIRM_SECONDS", 0.1)


@pytest.fixture
def without_locks(monkeypatch):
    """A file system without locks, as seen from several machines."""

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("eakd_det.utils.lock.fcntl.flock", refuse)


def test_without_locks_of_the_file_system_the_heartbeat_holds(folder, without_locks):
    first, second = Lock.of_folder(folder), Lock.of_folder(folder)
    with first, second:
        assert first.acquire() and not second.acquire() and second.is_held()
        assert second.holder() == f"process {os.getpid()} on {socket.gethostname()}"
        first.release()
        assert not second.is_held() and second.acquire() and not first.acquire()
    assert sorted(os.listdir(os.path.dirname(folder))) == ["teacher.lock"]


def test_a_dead_machine_s_lock_is_taken_over(folder, without_locks, monkeypatch):
    """A training waits for it, until its heartbeat is old."""
    with Lock.of_folder(folder) as dead:
        assert dead.acquire()
        path, last = dead.heartbeat.path, time.time() - 61
        sleep = lambda _: os.utime(path, (last, last))  # noqa: E731
        monkeypatch.setattr("eakd_det.utils.lock.time.sleep", sleep)
        with run_lock(folder):
            assert read_holder(path).token != dead.heartbeat.token
            dead.release()
            assert read_holder(path) is not None
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    ("kernel", "age", "is_free"), [("other", 61, True), ("other", 30, False), ("", 61, False)]
)
def test_a_lock_that_the_file_server_keeps(folder, monkeypatch, kernel, age, is_free):
    """That of a machine that has died is passed over; on this machine its process is alive."""
    with Lock.of_folder(folder) as held:
        with monkeypatch.context() as patch:
            if kernel:
                patch.setattr("eakd_det.utils.heartbeat._kernel", lambda: kernel)
            assert held.acquire()
        os.utime(held.heartbeat.path, (time.time() - age,) * 2)
        with Lock.of_folder(folder) as other:
            assert other.is_held() != is_free and other.acquire() == is_free


def test_on_one_machine_a_killed_holder_is_not_waited_for(folder, tmp_path):
    """Its heartbeat is young, but the system has released its lock."""
    os.makedirs(os.path.dirname(folder))
    lock = Lock.of_folder(folder)
    code = f"""
import os
from eakd_det.utils.heartbeat import Heartbeat
assert Heartbeat({lock.heartbeat.path!r}).acquire(is_alone=True)
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert os.path.exists(lock.heartbeat.path) and not lock.is_held()
    with lock:
        assert lock.acquire()


def test_a_classifier_s_teacher_is_trained_by_one_process(folder, held, tmp_path):
    """The second process waits, and then finds the teacher trained."""
    text = "VERSION: 2\nMODEL: {NAME: resnet8, DEVICE: cpu}\nDATASET: {NAME: digits}\n"
    (tmp_path / "teacher.yaml").write_text(f"{text}OUTPUT_DIR: {folder}\n")
    student = (
        f'{text}TEACHER: {{CONFIG_FILE: {tmp_path}/teacher.yaml}}\nDISTILL: {{METHODS: ["KD"]}}'
    )
    (tmp_path / "student.yaml").write_text(student)

    def finish():
        os.makedirs(folder)
        Path(folder, "model_final.pth").touch()

    polls = held(finish)
    fit_teacher(load_config(str(tmp_path / "student.yaml")), Namespace(resume=True))
    assert len(polls) == 3 and os.listdir(folder) == ["model_final.pth"]

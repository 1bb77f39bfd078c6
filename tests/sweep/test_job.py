"""Jobs of a script in place of tools/train_classifier.py, trained in this process."""

import dataclasses
import json
import os
import pickle
import signal
import socket
import threading
import time

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.job import ELSEWHERE, Outcome, train
from eakd_det.sweep.jobs import RunJob, TeacherJob
from eakd_det.utils import heartbeat
from eakd_det.utils.files import write_json
from eakd_det.utils.lock import Lock

FINISH = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
result = {"top1": 80.0, "top5": 99.0, "best_top1": 80.0, "teacher_top1": None}
folder.joinpath("result.json").write_text(json.dumps(result))
"""
SLOW = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("started", flush=True)
time.sleep(300)
"""


@pytest.fixture
def job(tmp_path):
    """Makes a run's job with a script; paths are relative to a folder."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "KD.yaml").write_text("VERSION: 2\nDATASET:\n  NAME: digits\n")
    here = os.getcwd()

    def make(body):
        (tmp_path / "script.py").write_text(body)
        os.chdir(tmp_path)
        (run,) = plan(Classifiers(), ["configs/KD.yaml"], [1], "out", [])
        os.chdir(here)
        return RunJob(run.title, run, ["script.py", *run.arguments], str(tmp_path))

    yield make
    os.chdir(here)


@pytest.fixture
def call():
    """Trains a job; `then` is called when it has printed something."""

    def call(job, then=lambda: None, **how):
        stop = threading.Event()

        def watch():
            log = job.folder / "stdout.txt"
            while not stop.is_set() and not (log.exists() and log.read_text()):
                time.sleep(0.02)
            then()

        handler = signal.signal(signal.SIGUSR1, lambda *_: stop.set())
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            return train(job, dict(os.environ), stop, **how)
        finally:
            stop.set()
            thread.join()
            signal.signal(signal.SIGUSR1, handler)

    return call


def test_a_pickled_job_is_trained_from_anywhere(job, call):
    """Its working directory and its outcome are those of the sweep."""
    again = pickle.loads(pickle.dumps(job(FINISH)))
    outcome = call(again)
    assert outcome.state == "done" and outcome.seconds > 0 and again.result() == "top-1 80.00"
    noted = json.loads((again.folder / "sweep.json").read_text())
    assert noted["outcome"] == dataclasses.asdict(outcome) and "fingerprint" in noted
    assert pickle.loads(pickle.dumps(outcome)) == outcome
    assert not (again.folder / "running.json").exists()
    assert call(again) == Outcome("done", ELSEWHERE)


def test_a_signal_s_handler_stops_it(job, call):
    slow = job(SLOW)
    outcome = call(slow, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    assert (outcome.state, str(outcome)) == ("stopped", "stopped")
    assert json.loads((slow.folder / "sweep.json").read_text())["outcome"]["state"] == "stopped"


def test_a_process_that_does_not_save_in_time_is_killed(job, call):
    deaf = job(SLOW.replace("lambda *_: sys.exit(143)", "signal.SIG_IGN"))
    start = time.monotonic()
    then = lambda: os.kill(os.getpid(), signal.SIGUSR1)  # noqa: E731
    assert call(deaf, then, grace=0.2).state == "stopped"
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("body", "state", "reason"),
    [
        ("import sys; sys.exit(143)", "stopped", "exit code 143"),
        ("import sys; sys.exit(138)", "stopped", "exit code 138"),
        ("import os; os.kill(os.getpid(), 9)", "stopped", "killed by SIGKILL"),
        ("import sys; sys.exit('no data')", "failed", "exit code 1"),
        ("", "failed", "no result.json"),
    ],
)
def test_ends(job, call, body, state, reason):
    outcome = call(job(body))
    assert (outcome.state, outcome.reason) == (state, reason)
    assert outcome.output.startswith("out/configs/KD/seed1/stdout.txt ends with")
    assert outcome.output.endswith("    no data") == ("no data" in body)


def test_a_config_that_has_changed_in_the_queue(job, call, tmp_path):
    queued, config = job(FINISH), tmp_path / "configs" / "KD.yaml"
    before = config.read_text()
    config.write_text(f"{before}SOLVER:\n  EPOCHS: 2\n")
    outcome = call(queued)
    assert outcome.state == "failed" and not (queued.folder / "result.json").exists()
    assert outcome.reason.startswith("configs/KD.yaml, or its teacher's config, has changed")
    assert json.loads((queued.folder / "sweep.json").read_text())["outcome"]["state"] == "failed"
    config.write_text(f"# A comment does not count.\n{before}")
    assert call(queued).state == "done"


def test_what_another_machine_trains_is_left_to_it(job, call, tmp_path, monkeypatch):
    other = job(FINISH)
    monkeypatch.chdir(tmp_path)
    lock = other.lock()
    with monkeypatch.context() as patch:
        patch.setattr(heartbeat, "_kernel", lambda: "other")
        patch.setattr("socket.gethostname", lambda: "gpu07")
        assert lock.heartbeat.acquire(is_alone=False)
    outcome = call(other)
    assert outcome == Outcome("elsewhere", f"process {os.getpid()} on gpu07")
    assert not (other.folder / "sweep.json").exists()
    lock.heartbeat.release()
    assert call(other).state == "done"


def test_a_training_that_another_machine_has_taken_over_ends(job, call, monkeypatch):
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    slow = job(SLOW)

    def take_over():
        path = slow.folder / "running.json"
        text = json.loads(path.read_text())
        write_json(path, {**text, "token": "another", "host": "gpu07", "pid": 7})

    outcome = call(slow, take_over)
    assert (outcome.state, outcome.reason) == ("elsewhere", "process 7 on gpu07")
    assert json.loads((slow.folder / "running.json").read_text())["token"] == "another"
    assert "outcome" not in json.loads((slow.folder / "sweep.json").read_text())


def test_a_machine_without_the_folder(job, call, tmp_path):
    lost = dataclasses.replace(job(FINISH), directory=str(tmp_path / "none"))
    expected = f"{socket.gethostname()} does not see {tmp_path}/none"
    assert call(lost) == Outcome("failed", expected)


def test_folders_of_others_are_failures(job, call, tmp_path):
    own = job(FINISH)
    folder = tmp_path / own.folder
    folder.mkdir(parents=True)
    (folder / "thesis.txt").touch()
    outcome = call(own)
    assert outcome.state == "failed" and "was not made by a sweep" in outcome.reason


def test_an_error_of_the_disk_is_a_failure(job, call, monkeypatch):
    full = job(FINISH)

    def note(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(full), "note", note)
    assert call(full) == Outcome("failed", "[Errno 28] No space left on device")


@pytest.fixture
def teacher(job, tmp_path):
    """Makes the job of a missing teacher with a script, which is started in its folder."""
    text = "VERSION: 2\nDATASET:\n  NAME: digits\n"

    def make(body):
        of = job(body)
        (tmp_path / "T.yaml").write_text(f"{text}OUTPUT_DIR: {tmp_path}/teacher\n")
        of.run.cfg.TEACHER.CONFIG_FILE = str(tmp_path / "T.yaml")
        of.run.cfg.DISTILL.METHODS = ("KD",)
        files = {"config_file": str(tmp_path / "T.yaml"), "output_dir": "teacher"}
        log = str(tmp_path / "log.txt")
        (tmp_path / "teacher").mkdir()
        return TeacherJob("T", of.run, ["script.py"], str(tmp_path), **files, log=log)

    return make


def test_a_teacher_that_was_taken_over_is_waited_for(teacher, tmp_path, monkeypatch):
    """Jobs that need it start after it alone."""
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.05)
    job, path, text = teacher(SLOW), tmp_path / "teacher.running.json", tmp_path / "log.txt"
    os.chdir(tmp_path)

    def take_over_and_finish():
        while not (text.exists() and text.read_text()):
            time.sleep(0.02)
        write_json(path, {**json.loads(path.read_text()), "token": "another", "kernel": "other"})
        time.sleep(0.3)
        (tmp_path / "teacher" / "model_final.pth").touch()
        path.unlink()

    other = threading.Thread(target=take_over_and_finish)
    other.start()
    assert job.result() is None
    assert train(job, dict(os.environ), threading.Event()) == Outcome("done", ELSEWHERE)
    other.join()


def test_a_lock_that_is_waited_for_is_tried_less_often(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("eakd_det.sweep.job.ATTEMPTS", 2)
    monkeypatch.setattr("eakd_det.sweep.job.WAIT_SECONDS", 0.3)
    job, tries, stop = teacher(SLOW), [], threading.Event()

    def acquire(_):
        tries.append(time.monotonic())
        if len(tries) == 4:
            stop.set()
        return False

    monkeypatch.setattr(Lock, "acquire", acquire)
    assert train(job, {}, stop).state == "stopped"
    assert tries[2] - tries[1] >= 0.3 and tries[3] - tries[2] >= 0.3


def test_a_waiting_teacher_is_stopped(teacher, tmp_path, caplog):
    teacher = teacher(FINISH)
    stop = threading.Event()
    os.chdir(tmp_path)
    with teacher.lock() as lock:
        assert lock.acquire()
        timer = threading.Timer(0.3, stop.set)
        timer.start()
        assert train(teacher, {}, stop).state == "stopped"
        timer.join()
    assert caplog.messages == ["Another process trains teacher: waiting until it ends"]

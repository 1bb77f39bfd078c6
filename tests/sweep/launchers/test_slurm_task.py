"""The worker is this process; what it trains is a script that ends or waits for a signal."""

import json
import os
import signal
import threading
import time

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.jobs import RunJob

submitit = pytest.importorskip("submitit")

from eakd_det.sweep.launchers.slurm_task import KILLS, Task  # noqa: E402

KIND = Classifiers()
SAVES = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
def save(*_):
    (folder / "saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
(folder / "trains").touch()
time.sleep(60)
"""
DONE = """
import json, os, pathlib, sys
assert os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "3600"
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
result = {"top1": 80.0, "top5": 99.0, "best_top1": 80.0, "teacher_top1": None, "seconds": 1.0}
folder.joinpath("result.json").write_text(json.dumps({**result, "epochs": 8}))
"""
FAILS = "import sys; sys.exit('no data')"
DIES = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


class Requeued(Exception):
    """In place of the SystemExit by which submitit's handler ends the worker."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a script as a job; the outcome, as the task has written it, and its exception."""
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "Digits" / "Student.yaml"
    config.parent.mkdir()
    config.write_text("VERSION: 2\nDATASET:\n  NAME: digits\nMODEL:\n  NAME: resnet8\n")
    (planned,) = plan(KIND, [str(config)], [1], str(tmp_path / "out"), [])

    def requeue(*_):
        raise Requeued

    def call(script, kills=0):
        (tmp_path / "train.py").write_text(script)
        job = RunJob("run", planned, ["train.py", *planned.arguments], str(tmp_path))
        task = Task(job, str(tmp_path), kills)
        signal.signal(signal.SIGUSR1, requeue)
        error = None
        try:
            task()
        except (Requeued, SystemExit) as found:
            error = found
        path = tmp_path / "7_outcome.json"
        return json.loads(path.read_text()) if path.exists() else None, error, task

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    yield call
    for number, handler in zip((signal.SIGTERM, signal.SIGUSR1), before, strict=True):
        signal.signal(number, handler)


def signal_when_it_trains(folder, number):
    def wait_and_send():
        while not (folder / "trains").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait_and_send, daemon=True).start()


def test_done_and_failed(run):
    outcome, error, _ = run(FAILS)
    assert (outcome["state"], outcome["reason"], error.code) == ("failed", "exit code 1", 1)
    assert "no data" in outcome["output"]
    outcome, error, _ = run(DONE)
    assert (outcome["state"], error) == ("done", None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_requeues(run, tmp_path, number):
    folder = tmp_path / "out" / "Digits" / "Student" / "seed1"
    signal_when_it_trains(folder, number)
    outcome, error, task = run(SAVES)
    assert isinstance(error, Requeued)
    assert (folder / "saved").exists()
    assert (outcome, task.kills) == (None, 0)
    assert task.checkpoint().function is task


def test_a_killed_training_is_requeued_a_few_times(run):
    outcome, error, task = run(DIES)
    assert (type(error), outcome, task.kills) == (Requeued, None, 1)
    outcome, error, _ = run(DIES, kills=KILLS)
    assert (outcome["state"], error.code) == ("failed", 1)
    assert outcome["reason"] == "killed by SIGKILL, 4 times"


@pytest.mark.parametrize("answer", ["echo COMPLETING", "exit 1"])
def test_a_canceled_job_saves_and_is_not_requeued(run, tmp_path, monkeypatch, answer):
    """It is COMPLETING for squeue; where squeue fails, the batch script requeues the job."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.parent.mkdir()
    squeue.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments; {answer}\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(squeue.parent), prepend=":")
    variables = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "5"}
    for name, value in {**variables, "SLURM_ARRAY_TASK_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "out" / "Digits" / "Student" / "seed1"
    signal_when_it_trains(folder, signal.SIGTERM)
    outcome, error, _ = run(SAVES)
    assert (outcome, error.code) == (None, 143)
    assert (folder / "saved").exists()
    assert "--jobs 5_1 " in (tmp_path / "arguments").read_text()  # 5 would be the whole array

"""Jobs as tasks of Ray; the slow tests start Ray itself, with two CPUs."""

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep import arguments
from eakd_det.sweep.grid import plan
from eakd_det.sweep.job import Outcome
from eakd_det.sweep.jobs import RunJob
from eakd_det.sweep.launchers.ray import Ray, _train
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[3]


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="the package ray is not installed; pip install ray"):
        Ray("")


def test_an_address_that_is_none(monkeypatch):
    pytest.importorskip("ray")
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_NUM_REDIS_GET_RETRIES"):
        monkeypatch.setenv(name, "1")  # it sets them
    with pytest.raises(UserError, match="--ray-address head: Invalid address .* a running cluster"):
        Ray("head")


def test_detached_tasks_are_refused(monkeypatch, capsys):
    command = "sweep.py --configs a.yaml --seeds 1 --launcher ray --detach"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit):
        arguments.parse("")
    assert (
        'Keep the sweep running instead: "nohup COMMAND &", or "ray job' in capsys.readouterr().err
    )


@pytest.fixture
def job(tmp_path):
    """A run whose script waits for SIGTERM, by which it saves."""
    script, config = tmp_path / "script.py", tmp_path / "config.yaml"
    config.write_text("VERSION: 2\nDATASET:\n  NAME: digits\nMODEL:\n  NAME: resnet8\n")
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('saved')))\n"
        "print('started', flush=True)\n"
        "time.sleep(300)\n"
    )
    (run,) = plan(Classifiers(), [str(config)], [1], str(tmp_path / "out"), [])
    return RunJob(run.title, run, [str(script)], os.getcwd())


def test_a_canceled_job_saves(job):
    """ray.cancel raises SIGINT in the main thread of the worker."""
    log = job.folder / "stdout.txt"

    def cancel():
        while not (log.exists() and log.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=cancel)
    thread.start()
    assert _train(job, Outcome("done")).state == "stopped"
    thread.join()
    assert log.read_text() == "started\nsaved\n"
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_job_does_not_start_without_its_teacher(job):
    assert _train(job, Outcome("done"), Outcome("failed", "exit code 1")).state == "stopped"
    assert not job.folder.exists()


class Sweep:
    """Sweep of two configs of digits with two seeds in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(ROOT / "configs" / "Digits", folder / "configs" / "Digits")

    def start(self, *arguments):
        configs = [f"configs/Digits/{name}.yaml" for name in ("KD", "EA-KD")]
        command = [sys.executable, str(ROOT / "tools" / "sweep.py"), "--configs", *configs]
        command += ["--seeds", "1", "2", "--output-dir", "out", *arguments]
        command += ["SOLVER.EPOCHS", "2", "SOLVER.STEPS", "(1,)", "MODEL.DEVICE", "cpu"]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, *arguments):
        """Return the output of a sweep that succeeds."""
        out, err = self.start(*arguments).communicate(timeout=900)
        assert not err, err
        return out

    def wait_for_checkpoint(self, process, name):
        folder = self.folder / "out" / "Digits" / name
        deadline = time.monotonic() + 600
        while not any(folder.glob("model_0*.pth")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def processes(self):
        """Return the processes that train."""
        psutil = pytest.importorskip("psutil")
        found = []
        for process in psutil.process_iter(["cmdline"]):
            is_training = any("train_classifier.py" in x for x in process.info["cmdline"] or [])
            if is_training and process.cwd() == str(self.folder):
                found.append(process)
        return found

    def tables(self):
        return [(self.folder / "out" / f"table.{x}").read_text() for x in ("md", "csv", "tex")]


@pytest.fixture
def cluster(monkeypatch):
    """Address of a cluster that `ray start` has started, of two CPUs and, as it believes, GPUs."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", os.urandom(32).hex())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of other orders differ
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--num-cpus", "2", "--num-gpus", "2", "--port", port, "--disable-usage-stats"]
    command += ["--object-store-memory", "100000000", "--include-dashboard", "false"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    yield f"127.0.0.1:{port}"
    os.killpg(process.pid, signal.SIGKILL)  # at SIGTERM it waits for tasks
    process.wait()


@pytest.mark.slow
def test_a_task_has_the_gpus_of_its_job(job, cluster):
    Path(job.command[0]).write_text(
        "import os, time\n"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'], flush=True)\n"
        "time.sleep(300)\n"
    )
    log = job.folder / "stdout.txt"
    with contextlib.closing(Ray(cluster)) as launcher:
        (first,) = launcher.submit([dataclasses.replace(job, gpus=2)])
        (second,) = launcher.submit([job], [first])
        while not (log.exists() and log.read_text()):
            assert launcher.outcome(first) is None
            time.sleep(0.1)
        assert launcher.state(first) == "running" and launcher.outcome(second) is None
        launcher.cancel([first, second])
        assert launcher.outcome(first).state == launcher.outcome(second).state == "stopped"
    assert log.read_text() == "0,1 1\n"


@pytest.mark.slow
def test_a_killed_worker_and_a_stopped_sweep_end_with_the_tables_of_one_machine(tmp_path, cluster):
    local, tasks = Sweep(tmp_path / "local"), Sweep(tmp_path / "ray")
    local.call("--jobs", "2")

    process = tasks.start("--launcher", "ray")
    tasks.wait_for_checkpoint(process, "KD/seed1")
    (victim,) = [p for p in tasks.processes() if "out/Digits/KD/seed1" in p.cmdline()]
    worker = victim.parent()
    assert worker.cmdline()[0].startswith("ray::")
    worker.kill()
    tasks.wait_for_checkpoint(process, "KD/seed2")
    os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C, which reaches Ray's processes, too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Stopped. To continue: " in err
    assert "KD seed 1: lost by Ray (WorkerCrashedError), submitted again" in out
    assert tasks.processes() == []

    out = tasks.call("--launcher", "ray", "--ray-address", cluster)
    assert "Ray: 2 CPUs and 2 GPUs" in out
    assert tasks.tables() == local.tables()
    for name in ("KD/seed1", "KD/seed2"):
        text = (tasks.folder / "out" / "Digits" / name / "stdout.txt").read_text()
        assert "Stopped by SIGTERM" in text

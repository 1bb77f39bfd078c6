"""Runs whose processes die, join and stop under torchrun: real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--log-dir", "log")
KILLS = 10
CLASSIFIER = """
VERSION: 2
OUTPUT_DIR: run
MODEL: {NAME: resnet8, DEVICE: cpu}
DATASET: {NAME: digits, TRAIN_SIZE: 32}
SOLVER: {EPOCHS: 24, BATCH_SIZE: 16}  # two steps an epoch, and a checkpoint after each
"""


@pytest.fixture
def detector(cli_cfg, tmp_path):
    """The command line of a detector's run, which saves every other step."""
    cfg = cli_cfg
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    cfg.SOLVER.MAX_ITER = 48
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    cfg.DATASETS.TEST, cfg.TEST.EVAL_PERIOD = ("digits_det_val",), 16
    cfg.OUTPUT_DIR = "run"
    (tmp_path / "detector.yaml").write_text(cfg.dump())
    return ["train_net.py", "--config-file", "detector.yaml"]


@pytest.fixture
def classifier(tmp_path):
    """The command line of a classifier's run."""
    (tmp_path / "classifier.yaml").write_text(CLASSIFIER)
    return ["train_classifier.py", "--config-file", "classifier.yaml"]


@pytest.fixture
def torchrun(tool_environment, tmp_path):
    """Starts a tool under torchrun, whose options come first; its output is a file.

    With `kills`, as many attempts have a process that is killed, and torchrun as many restarts.
    """
    started = []

    def start(options, tool, *arguments, kills=0, seed=0, out="out.txt"):
        script = [str(ROOT / "tools" / tool)]
        if kills:
            options = [*options, "--max-restarts", str(kills)]
            script = [str(ROOT / "tests" / "tools" / "killed.py"), str(kills), str(seed), *script]
        with open(tmp_path / out, "w") as file:
            process = subprocess.Popen(
                [*TORCHRUN, *options, *script, *arguments],
                cwd=tmp_path,
                env=tool_environment(),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        _cut_off(process)


def _cut_off(agent):
    """End an agent and its processes as a power cut does; they have sessions of their own."""
    if agent.poll() is None:
        agent.send_signal(signal.SIGSTOP)  # it starts no other processes
        call = ["pgrep", "-P", str(agent.pid)]
        found = subprocess.run(call, capture_output=True, text=True).stdout.split()
        for pid in [*map(int, found), agent.pid]:
            os.kill(pid, signal.SIGKILL)
        agent.wait()


TWO = ["--nproc-per-node", "2"]


def _weights(folder):
    return torch.load(Path(folder, "model_final.pth"), weights_only=True)["model"]


def _assert_same(folder, straight):
    ours, theirs = _weights(folder), _weights(straight)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def _straight(call_tool, tool, *arguments):
    """Train the run in two processes that nothing disturbs, into the folder "straight"."""
    code, out, err = call_tool(tool, *arguments, "OUTPUT_DIR", "straight", ranks=2)
    assert code == 0, out + err


def _wait(path, pattern, count=1, *, process, seconds=180):
    """Wait until a file has matches of a pattern; its text."""
    end = time.monotonic() + seconds
    while True:
        text = path.read_text() if path.exists() else ""
        if len(re.findall(pattern, text)) >= count:
            return text
        assert process.poll() is None and time.monotonic() < end, text[-3000:]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["detector", "classifier"])
def test_processes_that_are_killed_cost_nothing(family, request, torchrun, call_tool, tmp_path):
    """SIGKILL to one of two processes at a random moment, ten times in a row."""
    command = request.getfixturevalue(family)
    _straight(call_tool, *command)
    process = torchrun(TWO, *command, kills=KILLS)
    assert process.wait(600) == 0, (tmp_path / "out.txt").read_text()
    text = (tmp_path / "out.txt").read_text()
    assert len(re.findall("Killing process", text)) == KILLS
    assert text.count("the run goes on from its newest checkpoint") >= KILLS
    starts = [int(n) for n in re.findall(r"Starting training from iteration (\d+)", text)]
    assert starts == sorted(starts) and starts[0] == 0 and starts[-1] > KILLS
    _assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.slow
def test_an_earlier_run_is_refused_or_removed_by_the_first_attempt_alone(
    torchrun, classifier, call_tool, tmp_path
):
    code, out, err = call_tool(*classifier, "SOLVER.EPOCHS", "1", "SEED", "7")
    assert code == 0, out + err
    names = ("model_final.pth", "metrics.json", "run.json", "config.yaml")
    before = {name: (tmp_path / "run" / name).read_bytes() for name in names}
    process = torchrun([*TWO, "--max-restarts", "1"], *classifier)
    assert process.wait(300) != 0
    text = (tmp_path / "out.txt").read_text()
    assert text.count("error: OUTPUT_DIR run holds a run: --resume continues it") >= 2
    assert {name: (tmp_path / "run" / name).read_bytes() for name in names} == before

    _straight(call_tool, *classifier)
    process = torchrun(TWO, *classifier, "--overwrite", kills=2)
    assert process.wait(300) == 0, (tmp_path / "out.txt").read_text()
    starts = re.findall(
        r"Starting training from iteration (\d+)", (tmp_path / "out.txt").read_text()
    )
    assert starts[0] == "0" and "0" not in starts[1:]
    _assert_same(tmp_path / "run", tmp_path / "straight")


@pytest.mark.slow
def test_a_machine_leaves_and_another_joins(torchrun, detector, tmp_path, monkeypatch):
    """Two agents of a process each; all processes of one are killed; later one more joins."""
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")  # else the third waits in vain
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3"]
    options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "x"]
    host, guest = (["--rdzv-conf", f"is_host={n},last_call_timeout=15"] for n in (1, 0))
    long = ("SOLVER.MAX_ITER", "100000")
    first = torchrun([*options, *host], *detector, *long)
    second = torchrun([*options, *guest], *detector, *long, out="second.txt")
    log, metrics = tmp_path / "run" / "log.txt", tmp_path / "run" / "metrics.json"
    _wait(log, r"model_0000003\.pth", process=first)
    _cut_off(second)
    _wait(log, r"= 1 \(processes\) x 2 \(micro-batches\) x 2;", process=first)
    alone = _wait(log, r"Starting training from iteration", 2, process=first)
    assert "The run began with 2 processes and has 1: SOLVER.ACCUMULATE is 2, not 1." in alone
    assert "The checkpoint is of 2 processes and this run has 1: the random states are" in alone
    time.sleep(3)
    third = torchrun([*options, *guest], *detector, *long, out="third.txt")
    text = _wait(log, r"= 2 \(processes\) x 1 \(micro-batches\) x 2;", 2, process=first)
    assert "Stopped by SIGTERM at iteration" in text  # saved, as the agent ended it for the third
    text = _wait(log, r"Starting training from iteration", 3, process=first)
    starts = [int(n) for n in re.findall(r"Starting training from iteration (\d+)", text)]
    assert starts == sorted(set(starts))
    _wait(metrics, rf'"iteration": {starts[-1] // 20 * 20 + 19}', process=first)
    for process in (first, third):
        process.terminate()
    for process in (first, third):
        process.wait(60)
    losses = [json.loads(line).get("total_loss", 1.0) for line in metrics.open()]
    assert all(0 < loss < 100 for loss in losses)


@pytest.mark.slow
def test_told_to_stop_in_a_step_and_started_again(torchrun, classifier, call_tool, tmp_path):
    """SIGTERM to torchrun, which has restarts left; the same command goes on."""
    command = [*classifier, "SOLVER.CHECKPOINT_PERIOD", "1000", "SOLVER.EPOCHS", "150"]
    _straight(call_tool, *command)
    options = [*TWO, "--max-restarts", "3"]
    process = torchrun(options, *command, "--resume")
    _wait(tmp_path / "out.txt", "Epoch 3/150", process=process)
    process.terminate()
    assert process.wait(60) != 0
    text = (tmp_path / "out.txt").read_text()
    (stopped,) = re.findall(r"Stopped by SIGTERM at iteration (\d+): saved", text)
    process = torchrun(options, *command, "--resume", out="again.txt")
    assert process.wait(300) == 0
    assert f"Starting training from iteration {stopped}" in (tmp_path / "again.txt").read_text()
    _assert_same(tmp_path / "run", tmp_path / "straight")

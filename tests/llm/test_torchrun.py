"""Language models under a real torchrun: killed workers, other numbers of processes, SIGTERM."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm.training import fit

from .conftest import make_gpt2, save, write_jsonl

pytestmark = pytest.mark.slow  # each start of two processes takes seconds

# Trains a config as tools/train_lm.py does: CONFIG RESUME [END ...]. Attempt N of torchrun comes to
# the N-th END, ACTION:EVENT:RANK:STEP: an action in that callback of a process (RANK * is any).
TRAINS = """
import os, signal, sys, time
from transformers import TrainerCallback
from llm import training
from llm.config import load_config
from llm.log import show_progress

def worker():
    os.kill(os.getpid(), signal.SIGKILL)

def machine():
    os.kill(os.getppid(), signal.SIGKILL)
    worker()

def agent():
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(3)  # the step is not over when SIGTERM arrives

def end(args, state, control, **kwargs):
    if state.global_step == int(step) and rank in (str(args.process_index), "*"):
        globals()[action]()

def with_end(*args):
    trainer = build(*args)
    if event:
        trainer.add_callback(type("End", (TrainerCallback,), {event: staticmethod(end)})())
    return trainer

path, resume, *ends = sys.argv[1:]
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
action, event, rank, step = ends[attempt].split(":") if attempt < len(ends) else 4 * [""]
build, training.build_trainer = training.build_trainer, with_end
show_progress()
training.train(load_config(path), resume == "True")
"""
EVENTS = ("on_step_begin", "on_substep_end", "on_pre_optimizer_step", "on_step_end")
TWO = ("--standalone", "--nproc-per-node", "2")


@pytest.fixture
def cfg(cfg, tokenizer, tmp_path):
    """Config of 24 steps over several epochs, with dropout, on 2 processes and 2 micro-batches."""
    student = make_gpt2(tokenizer, 2)
    student.config.resid_pdrop = student.config.embd_pdrop = 0.1
    cfg.MODEL.WEIGHTS = save(student, tokenizer, tmp_path / "dropout")
    lines = [{"instruction": "Repeat.", "input": f"{n} sun", "output": f"{n}"} for n in range(40)]
    cfg.DATASET.TRAIN = write_jsonl(tmp_path / "forty.jsonl", lines)
    for key, value in {
        "OPTIM": "adamw_torch",
        "LEARNING_RATE": 1e-2,
        "LR_SCHEDULER_TYPE": "cosine",
        "WARMUP_STEPS": 4,
        "MAX_GRAD_NORM": 1.0,
        "PER_DEVICE_TRAIN_BATCH_SIZE": 2,
        "GRADIENT_ACCUMULATION_STEPS": 2,
        "MAX_STEPS": 24,
        "LOGGING_STEPS": 1,
        "SAVE_STRATEGY": "steps",
        "SAVE_STEPS": 2,
        "SAVE_TOTAL_LIMIT": 2,
    }.items():
        cfg.TRAINING[key] = value
    return cfg


@pytest.fixture
def start(tmp_path):
    """Starts torchrun; its process, of which stdout and stderr are one pipe."""
    (tmp_path / "code.py").write_text(TRAINS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = []

    def start(cfg, *options, ends=(), resume=False):
        path = Path(f"{cfg.OUTPUT_DIR}.yaml")
        path.write_text(cfg.dump())
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--log-dir", "log", *options]
        process = subprocess.Popen(
            [*torchrun, "code.py", str(path), str(resume), *ends],
            cwd=tmp_path,
            env=environment,
            text=True,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def finish(process, code=0):
    out, _ = process.communicate(timeout=600)
    assert process.returncode == code, out
    return out


def renamed(cfg, name):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = f"{cfg.OUTPUT_DIR}-{name}"
    return cfg


def losses_of(cfg):
    history = json.loads(Path(cfg.OUTPUT_DIR, "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def assert_same(cfg, other):
    """Bit for bit the same weights, and the same losses of all steps."""
    ours, theirs = (load_file(Path(c.OUTPUT_DIR, "model.safetensors")) for c in (cfg, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(losses_of(cfg)) == 24 and losses_of(cfg) == losses_of(other)


def test_killed_and_stopped_runs_end_with_the_weights_of_an_undisturbed_one(cfg, start):
    """A worker killed at ten random steps; then SIGTERM to torchrun, and --resume."""
    whole, killed, stopped = (renamed(cfg, name) for name in ("whole", "killed", "stopped"))
    finish(start(whole, *TWO))

    rng = random.Random()
    steps = sorted(rng.sample(range(1, 24), 10))
    ends = [f"worker:{rng.choice(EVENTS)}:{rng.randrange(2)}:{step}" for step in steps]
    out = finish(start(killed, *TWO, "--max-restarts", "10", ends=ends))
    assert len(re.findall("started the processes again: ", out)) == 10, (ends, out)
    assert out.count("at step 0") <= sum(step < 3 for step in steps), (ends, out)
    assert_same(killed, whole)

    step = rng.randrange(5, 20)
    out = finish(start(stopped, *TWO, ends=[f"agent:on_substep_end:1:{step}"]), code=1)
    assert "Stopped by SIGTERM at iteration" in out, out
    out = finish(start(stopped, *TWO, resume=True))
    begin = int(re.search(r"--resume: the run goes on from .*checkpoint-(\d+)", out)[1])
    assert step < begin < 24
    assert_same(stopped, whole)


def test_a_run_whose_second_machine_dies_goes_on_with_one_process(cfg, tokenizer, start, tmp_path):
    """Losses are those of one process that takes as many examples a step."""
    cfg.MODEL.WEIGHTS = save(make_gpt2(tokenizer, 2), tokenizer, tmp_path / "student")
    alone = renamed(cfg, "alone")
    alone.TRAINING.GRADIENT_ACCUMULATION_STEPS = 4
    fit(alone)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3")
    options += ("--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "x")
    times = "last_call_timeout=20,keep_alive_interval=1,keep_alive_max_attempt=3"
    stays = start(cfg, *options, "--rdzv-conf", f"is_host=1,{times}")
    dies = start(
        cfg, *options, "--rdzv-conf", f"is_host=0,{times}", ends=["machine:on_substep_end:*:7"]
    )
    out, _ = dies.communicate(timeout=600)
    assert dies.returncode == -signal.SIGKILL, out
    out = finish(stays)
    assert "GRADIENT_ACCUMULATION_STEPS 2 -> 4; a step has 8 examples as before" in out, out
    assert "of 2 processes and this run has 1: the random states are not restored" in out
    assert re.search(r"the run goes on from .*checkpoint-6\.", out)
    assert losses_of(cfg) == pytest.approx(losses_of(alone), rel=1e-3)

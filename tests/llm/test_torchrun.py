"""Language models under a real torchrun: killed workers, other numbers of processes, SIGTERM."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .conftest import make_gpt2, save, write_jsonl

pytestmark = pytest.mark.slow  # each start of two processes takes seconds

# Trains the config as tools/train_lm.py does. Each attempt of torchrun is killed once: EVENT RANK
# STEP of the attempt's number, in that callback of that process after as many steps.
TRAINS = """
import os, signal, sys
from transformers import TrainerCallback
from llm import training
from llm.config import load_config
from llm.log import show_progress

def kill(args, state, control, **kwargs):
    if state.global_step == int(step) and args.process_index == int(rank):
        os.kill(os.getpid(), signal.SIGKILL)

def with_kill(*args):
    trainer = build(*args)
    if kills:
        trainer.add_callback(type("Kill", (TrainerCallback,), {event: staticmethod(kill)})())
    return trainer

path, *kills = sys.argv[1:]
attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
kills = kills[attempt].split(":") if attempt < len(kills) else None
if kills:
    event, rank, step = kills
build, training.build_trainer = training.build_trainer, with_kill
show_progress()
training.train(load_config(path))
"""
EVENTS = ("on_step_begin", "on_substep_end", "on_pre_optimizer_step", "on_step_end", "on_save")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--log-dir", "log")


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

    def start(cfg, *options, kills=(), torchrun=TORCHRUN):
        path = Path(f"{cfg.OUTPUT_DIR}.yaml")
        path.write_text(cfg.dump())
        return subprocess.Popen(
            [sys.executable, *torchrun, *map(str, options), "code.py", str(path), *kills],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    return start


def succeed(process):
    out, _ = process.communicate(timeout=600)
    Path("/tmp/scratch-w-elastic-lm/out.txt").write_text(out)
    assert process.returncode == 0, out
    return out


def renamed(cfg, name):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = f"{cfg.OUTPUT_DIR}-{name}"
    return cfg


def weights_of(cfg):
    return load_file(Path(cfg.OUTPUT_DIR, "model.safetensors"))


def losses_of(cfg):
    history = json.loads(Path(cfg.OUTPUT_DIR, "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_killed_ten_times_it_ends_with_the_weights_of_an_undisturbed_run(cfg, start):
    whole, killed = renamed(cfg, "whole"), renamed(cfg, "killed")
    out = succeed(start(whole, "--nproc-per-node", 2))
    seed = random.randrange(1000)
    rng = random.Random(seed)
    steps = sorted(rng.sample(range(1, 24), 10))
    kills = [f"{rng.choice(EVENTS[:4])}:{rng.randrange(2)}:{step}" for step in steps]
    out = succeed(start(killed, "--nproc-per-node", 2, "--max-restarts", 10, kills=kills))
    print(f"seed {seed}:", *kills)
    Path("/tmp/scratch-w-elastic-lm/out.txt").write_text(out)
    assert len(re.findall("Restarted by torchrun: ", out)) == 10, out
    assert out.count("from step 0") <= sum(step < 3 for step in steps)
    ours, theirs = weights_of(killed), weights_of(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses_of(killed) == losses_of(whole)

"""Starts of one process that torchrun's variables describe, and other numbers of processes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from eakd_det.utils.errors import UserError
from llm import training
from llm.checkpoints import saved_processes
from llm.restart import record_batch, same_global_batch
from llm.stopping import ResumableTrainer
from llm.training import TRAIN_RESULT, fit, prepare, train


@pytest.fixture
def agent(monkeypatch):
    """A function that makes this process one of an agent of torchrun, by the agent's folder."""

    def start(folder):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"{folder}/attempt_0/0/error.json")

    return start


@pytest.fixture
def crash(monkeypatch):
    """A function that lets the next trainings raise RuntimeError in an event after some steps."""
    build = training.build_trainer

    def at(event, step):
        def raise_error(args, state, control, **kwargs):
            if state.global_step == step:
                raise RuntimeError

        def with_crash(*args):
            trainer = build(*args)
            crash = type("Crash", (TrainerCallback,), {event: staticmethod(raise_error)})
            trainer.add_callback(crash())
            return trainer

        monkeypatch.setattr(training, "build_trainer", with_crash if event else build)

    return at


@pytest.fixture
def saving(cfg):
    """Config of 5 steps, 3 an epoch, with a checkpoint after every second one."""
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.OPTIM = 1e-2, "adamw_torch"
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = "steps", 2
    cfg.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE, cfg.TRAINING.MAX_STEPS = 1, 5
    cfg.DATASET.TRAIN_SIZE = 3
    return cfg


def weights(cfg):
    return load_file(Path(cfg.OUTPUT_DIR, "model.safetensors"))


def assert_equal(cfg, other):
    ours, theirs = weights(cfg), weights(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_restart_resumes_and_does_not_overwrite(saving, agent, crash, caplog):
    whole = saving.clone()
    whole.OUTPUT_DIR += "-whole"
    fit(whole)
    fit(saving)  # an earlier run
    agent("/tmp/a/x")
    with pytest.raises(UserError, match="holds a run: --resume continues it"):
        train(saving)
    crash("on_step_begin", 3)
    with pytest.raises(RuntimeError):
        train(saving, overwrite=True)
    assert not Path(saving.OUTPUT_DIR, TRAIN_RESULT).exists()
    crash("", 0)
    caplog.set_level("INFO", "llm")
    assert train(saving, overwrite=True)["train_loss"] > 0
    checkpoint = Path(saving.OUTPUT_DIR, "checkpoint-2")
    assert f"started the processes again: the run goes on from {checkpoint}." in caplog.text
    assert_equal(saving, whole)
    assert train(saving, overwrite=True) is None, "again restarted: it has ended"
    assert "has ended: nothing is left to train" in caplog.text
    agent("/tmp/b/x")
    with pytest.raises(UserError, match="holds a run: --resume continues it"):
        train(saving)


def test_a_restart_before_the_first_checkpoint(saving, agent, crash, caplog):
    agent("/tmp/a/x")
    crash("on_step_begin", 1)
    with pytest.raises(RuntimeError):
        train(saving)
    crash("", 0)
    caplog.set_level("INFO", "llm")
    train(saving)
    assert "the processes again: the run goes on at step 0: nothing is saved." in caplog.text


@pytest.mark.parametrize("event", ["on_train_end", "on_save"])
def test_a_run_that_ends_while_it_saves(saving, agent, crash, event):
    """After the last step no step is left to train, within an epoch too."""
    whole = saving.clone()
    whole.OUTPUT_DIR += "-whole"
    fit(whole)
    agent("/tmp/a/x")
    crash(event, 5)
    with pytest.raises(RuntimeError):
        train(saving)
    crash("", 0)
    train(saving)
    assert_equal(saving, whole)
    state = json.loads(Path(saving.OUTPUT_DIR, "trainer_state.json").read_text())
    assert state["global_step"] == 5


def test_a_checkpoint_that_was_being_saved(saving, monkeypatch, caplog):
    """The resumed run removes it, and continues from the one before."""
    whole = saving.clone()
    whole.OUTPUT_DIR += "-whole"
    fit(whole)
    save = ResumableTrainer._save_rng_state

    def fails_at_4(self, folder):
        if self.state.global_step == 4:
            raise RuntimeError
        save(self, folder)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(ResumableTrainer, "_save_rng_state", fails_at_4)
        fit(saving)
    fit(saving, resume=True)
    assert "checkpoint-4 is incomplete, of a process that was killed: now " in caplog.text
    assert_equal(saving, whole)


def test_an_ended_run_that_is_extended_is_no_ended_restart(saving, agent, crash):
    fit(saving)
    saving.TRAINING.MAX_STEPS = 9
    agent("/tmp/a/x")
    crash("on_step_begin", 7)
    with pytest.raises(RuntimeError):
        train(saving, resume=True)
    crash("", 0)
    assert train(saving) is not None


def test_a_teacher_whose_training_is_restarted(saving, agent, crash, tmp_path):
    teacher = saving.clone()
    teacher.DISTILL.METHODS, teacher.OUTPUT_DIR = (), str(tmp_path / "own-teacher")
    (tmp_path / "teacher.yaml").write_text(teacher.dump())
    saving.TEACHER.WEIGHTS, saving.TEACHER.CONFIG_FILE = "", str(tmp_path / "teacher.yaml")
    agent("/tmp/a/x")
    crash("on_step_begin", 3)
    with pytest.raises(RuntimeError):
        prepare(saving)
    crash("", 0)
    train(saving)
    record = json.loads((tmp_path / "own-teacher" / "run.json").read_text())
    assert len(record["starts"]) == 2


def keys(cfg):
    training = cfg.TRAINING
    return (
        training.PER_DEVICE_TRAIN_BATCH_SIZE,
        training.GRADIENT_ACCUMULATION_STEPS,
        training.LEARNING_RATE,
    )


@pytest.mark.parametrize(
    ("devices", "expected", "message"),
    [
        (8, (4, 2, 0.5), ""),
        (4, (4, 4, 0.5), "GRADIENT_ACCUMULATION_STEPS 2 -> 4; a step has 64 examples as before"),
        (2, (4, 8, 0.5), "8 processes at the first start, 2 now: GRADIENT_ACCUMULATION_STEPS 2"),
        (32, (2, 1, 0.5), "PER_DEVICE_TRAIN_BATCH_SIZE 4 -> 2, GRADIENT_ACCUMULATION_STEPS 2 -> 1"),
        (6, (2, 5, 0.46875), "LEARNING_RATE 0.5 -> 0.46875; a step has 60 examples in place of 64"),
    ],
)
def test_the_examples_of_a_step_stay(cfg, caplog, devices, expected, message):
    caplog.set_level("INFO", "llm")
    training = cfg.TRAINING
    training.PER_DEVICE_TRAIN_BATCH_SIZE, training.GRADIENT_ACCUMULATION_STEPS = 4, 2
    training.LEARNING_RATE = 0.5
    assert same_global_batch(cfg, devices) is cfg, "nothing is recorded"
    record_batch(cfg, 8)
    adapted = same_global_batch(cfg, devices)
    assert keys(adapted) == expected and keys(cfg) == (4, 2, 0.5)
    assert message in caplog.text
    record_batch(cfg, devices)  # of the resumed start: the first one stays
    assert keys(same_global_batch(cfg, 8)) == (4, 2, 0.5)


def test_a_changed_config_has_the_last_word(cfg):
    cfg.TRAINING.GRADIENT_ACCUMULATION_STEPS = 2
    record_batch(cfg, 8)
    cfg.TRAINING.GRADIENT_ACCUMULATION_STEPS = 3
    assert same_global_batch(cfg, 4) is cfg
    record_batch(cfg, 4)
    assert same_global_batch(cfg, 2).TRAINING.GRADIENT_ACCUMULATION_STEPS == 6


def test_more_processes_than_examples(cfg):
    record_batch(cfg, 1)
    with pytest.raises(UserError, match="5 processes cannot share the 4 examples of a step"):
        same_global_batch(cfg, 5)


def test_random_states_of_another_number_of_processes(saving, caplog):
    saving.TRAINING.MAX_STEPS = 2
    fit(saving)
    checkpoint = Path(saving.OUTPUT_DIR, "checkpoint-2")
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    (checkpoint / "rng_state_1.pth").touch()
    saving.TRAINING.MAX_STEPS = 3
    fit(saving, resume=True)
    text = "The checkpoint is of 2 processes and this run has 1: the random states are not restored"
    assert text in caplog.text


TRAINS = """
import sys
from llm.config import load_config
from llm.training import train
print(train(load_config(sys.argv[1])) is not None)
"""


def test_two_processes_train_a_needed_teacher_together(saving, call_code, tmp_path):
    """Once, under its lock; both see that it has ended."""
    saving.TRAINING.MAX_STEPS = 2
    teacher = saving.clone()
    teacher.DISTILL.METHODS, teacher.OUTPUT_DIR = (), str(tmp_path / "own-teacher")
    (tmp_path / "teacher.yaml").write_text(teacher.dump())
    saving.TEACHER.WEIGHTS, saving.TEACHER.CONFIG_FILE = "", str(tmp_path / "teacher.yaml")
    (tmp_path / "run.yaml").write_text(saving.dump())
    code, out, err = call_code(TRAINS, tmp_path / "run.yaml", ranks=2)
    assert code == 0 and out.count("True") == 2, out + err
    for folder in (tmp_path / "own-teacher", tmp_path / "run"):
        record = json.loads((folder / "run.json").read_text())
        assert [start["processes"] for start in record["starts"]] == [2]
        assert record["batch"] == {"devices": 2, "per_device": 1, "accumulate": 1}
        assert saved_processes(folder / "checkpoint-2") == 2

"""Runs that stop at what is not finite, before it is applied or saved."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from eakd_det.engine.train_step.zero_losses import PATIENCE
from eakd_det.losses import forward_kl
from eakd_det.utils.errors import UserError
from llm.distillers import DISTILLERS
from llm.training import fit
from llm.watched import WatchedTrainer

from .conftest import make_gpt2, save


def written(cfg):
    """Return the names in OUTPUT_DIR beside the record of its start."""
    return sorted({path.name for path in Path(cfg.OUTPUT_DIR).glob("*")} - {"run.json"})


@pytest.mark.parametrize("methods", [(), ("KD",)])
def test_a_loss_that_is_not_finite_ends_the_run(cfg, methods):
    """After one step that was too long, whose weights are finite and saved."""
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, False
    cfg.TRAINING.LEARNING_RATE, cfg.TRAINING.MAX_STEPS = 1e30, 3
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = "steps", 1
    with pytest.raises(UserError, match="At step 2 the loss is nan, .* the step is not applied"):
        fit(cfg)
    assert written(cfg) == ["checkpoint-1"]


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_the_first_step_and_the_head_is_not_blamed(cfg, tokenizer, tmp_path, chunk_size):
    student = make_gpt2(tokenizer, 2)
    with torch.no_grad():
        student.lm_head.weight.mul_(1e38)
    cfg.MODEL.WEIGHTS = save(student, tokenizer, tmp_path / "huge")
    cfg.DISTILL.CHUNK_SIZE = chunk_size
    with pytest.raises(UserError, match=r"At step 1 the loss is nan, loss_kd is nan"):
        fit(cfg)
    assert not written(cfg)


def test_a_gradient_that_is_not_finite_ends_the_run(cfg, monkeypatch):
    """A gradient alone is not finite: all losses are."""

    def with_a_nan(student_logits, *others, **options):
        zero = (student_logits - student_logits.detach()).square().sum(dim=-1).sqrt()
        return zero + forward_kl(student_logits, *others, **options)

    monkeypatch.setattr(DISTILLERS["KD"], "loss", with_a_nan)
    with pytest.raises(UserError, match="At step 1 the norm of the gradient is nan: the step is"):
        fit(cfg)
    assert not written(cfg)


@pytest.mark.parametrize("save_strategy", ["no", "steps"])
def test_weights_that_are_not_finite_are_not_saved(cfg, save_strategy):
    """The last step's, which no loss follows."""
    cfg.DISTILL.CE_WEIGHT, cfg.TRAINING.LEARNING_RATE = 1e3, 1e38
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = save_strategy, 1
    with pytest.raises(
        UserError, match=r"After step 1 the weights of transformer\.wte\.weight are"
    ):
        fit(cfg)
    assert not written(cfg)


def test_steps_that_float16_leaves_out_are_counted(cfg, monkeypatch):
    """A scaler is a GPU's: here its scale is made up, before and after each step."""
    scales = iter([4.0, 8.0, 8.0, 4.0, 4.0, 2.0])
    monkeypatch.setattr(WatchedTrainer, "_loss_scale", lambda _: next(scales))
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.LR_SCHEDULER_TYPE = "steps", "constant"
    cfg.TRAINING.MAX_STEPS, cfg.TRAINING.LOGGING_STEPS, cfg.TRAINING.LEARNING_RATE = 3, 1, 0.1
    cfg.TRAINING.SAVE_STEPS = 3
    fit(cfg)
    state = json.loads((Path(cfg.OUTPUT_DIR) / "checkpoint-3" / "trainer_state.json").read_text())
    assert [logs.get("skipped_steps") for logs in state["log_history"]] == [None, 1, 2]

    falling = itertools.count(0.0, -1.0)
    monkeypatch.setattr(WatchedTrainer, "_loss_scale", lambda _: next(falling))
    cfg.OUTPUT_DIR, cfg.TRAINING.MAX_STEPS = cfg.OUTPUT_DIR + "-always", PATIENCE + 1
    cfg.TRAINING.SAVE_STEPS = PATIENCE + 1
    with pytest.raises(UserError, match=f"gradients of the last {PATIENCE} steps were not finite"):
        fit(cfg)
    assert not written(cfg)


def test_an_idle_loss_is_warned_about(cfg, caplog):
    cfg.DISTILL.KD.WEIGHT, cfg.TRAINING.MAX_STEPS, cfg.TRAINING.LEARNING_RATE = 0.0, PATIENCE, 0.1
    fit(cfg)
    assert f"loss_kd has been 0 for {PATIENCE} iterations" in caplog.text
    assert "loss_ce" not in caplog.text


def test_methods_are_compared_with_the_cross_entropy(cfg, caplog):
    """Also of a run that Trainer resumes, which has been compared at its start."""
    cfg.DISTILL.CE_WEIGHT, cfg.TRAINING.MAX_STEPS = 1.0, 2
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = "steps", 1
    with caplog.at_level("INFO"):
        fit(cfg)
    [settings] = [text for text in caplog.messages if text.startswith("Methods: KD with WEIGHT")]
    assert "; EA weight full, temperature " in settings
    [line] = [text for text in caplog.messages if text.startswith("Losses relative to the task's")]
    assert "medians of the first 2 iterations: loss_kd " in line
    caplog.clear()
    cfg.TRAINING.MAX_STEPS = 3
    with caplog.at_level("INFO"):
        fit(cfg, resume=True)
    assert any(text.startswith("Methods: ") for text in caplog.messages)
    assert not any(text.startswith("Losses relative") for text in caplog.messages)

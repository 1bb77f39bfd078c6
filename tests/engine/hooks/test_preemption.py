import logging
import os
import signal

import pytest
import torch
from detectron2.engine import HookBase, TrainerBase

from eakd_det.engine.hooks.preemption import Preemption
from eakd_det.engine.signals import SIGNALS
from eakd_det.utils.errors import UserError

from ..runs import train


class _Told(HookBase):
    """The run is told to stop in the step of an iteration."""

    def __init__(self, iteration, number):
        self.iteration, self.number = iteration, number

    def before_step(self):
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


def _train_until_told(cfg, output_dir, iteration, number):
    """The exit code of a run that is told to stop; its handlers of signals do not stay."""
    before = {n: signal.getsignal(n) for n in SIGNALS}
    try:  # resumed where there is nothing, it starts
        train(cfg, output_dir, [cfg.SOLVER.MAX_ITER], resume=True, hook=_Told(iteration, number))
    except SystemExit as stopped:
        return stopped.code
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_a_run_that_is_told_to_stop_loses_nothing(run_cfg, tmp_path, caplog):
    """Between two checkpoints, and before the evaluation that the step would bring."""
    caplog.set_level(logging.INFO, "eakd_det")
    cfg = run_cfg
    cfg.TEST.EVAL_PERIOD = 2
    straight = train(cfg, tmp_path / "straight", [4])
    code = _train_until_told(cfg, tmp_path / "run", 1, signal.SIGUSR1)
    assert code == 128 + signal.SIGUSR1
    assert "Stopped by SIGUSR1 at iteration 2: saved; --resume continues" in caplog.text
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000001.pth"
    assert not (tmp_path / "run" / "model_best.pth").exists()
    resumed = train(cfg, tmp_path / "run", [4], resume=True)
    assert resumed.start_iter == 2
    ours, theirs = straight.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_run_that_is_told_to_stop_in_its_last_step(run_cfg, tmp_path):
    """The evaluation is left to the resumed one."""
    run_cfg.SOLVER.MAX_ITER = 2
    code = _train_until_told(run_cfg, tmp_path / "run", 1, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"
    assert not (tmp_path / "run" / "result.json").exists()
    train(run_cfg, tmp_path / "run", [2], resume=True)
    assert (tmp_path / "run" / "result.json").exists()


class _Failing(HookBase):
    def before_train(self):
        raise UserError("the record has no width")


def test_an_error_of_another_hook_before_the_training_is_not_replaced():
    trainer = TrainerBase()
    trainer.register_hooks([_Failing(), Preemption(states=None, checkpointer=None)])
    with pytest.raises(UserError, match="the record has no width"):
        trainer.train(0, 1)

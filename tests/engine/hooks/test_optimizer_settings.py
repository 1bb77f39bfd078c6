import logging

import pytest
from detectron2.engine import HookBase

from ..runs import train


class _Rates(HookBase):
    """Learning rate of each iteration."""

    def before_train(self):
        self.rates = []

    def before_step(self):
        self.rates.append(self.trainer._trainer.optimizer.param_groups[0]["lr"])


def _changes(caplog):
    return [r.getMessage() for r in caplog.records if r.name.endswith(".optimizer_settings")]


def test_the_optimizer_s_settings_of_a_resumed_run_are_its_config_s(run_cfg, tmp_path, caplog):
    caplog.set_level(logging.INFO, "eakd_det")
    cfg = run_cfg
    cfg.DATASETS.TEST, cfg.SOLVER.CHECKPOINT_PERIOD = (), 2
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.BASE_LR = 0, 0.01
    train(cfg, tmp_path / "run", [2])
    train(cfg, tmp_path / "run", [3], resume=True)
    assert not _changes(caplog)
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.MOMENTUM = 0.004, 0.001, 0.8
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 6, (4,)
    watch = _Rates()
    trainer = train(cfg, tmp_path / "run", [6], resume=True, hook=watch)
    assert watch.rates == pytest.approx([0.004, 0.0004, 0.0004])
    group = trainer._trainer.optimizer.param_groups[0]
    assert (group["weight_decay"], group["momentum"]) == (0.001, 0.8)
    [line] = _changes(caplog)
    words = line.removeprefix("--resume: ").removesuffix(" from iteration 3 on").split(", ")
    assert sorted(words) == [
        "BASE_LR 0.01 -> 0.004",
        "MOMENTUM 0.9 -> 0.8",
        "WEIGHT_DECAY 0.0001 -> 0.001",
    ]

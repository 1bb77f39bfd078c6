import logging

import pytest

from eakd_det.engine.train_step.loss_ratio import FIRST_STEPS, LossRatio

from .test_step import make, run


def _warnings(caplog, steps, *, prefixes=("loss_dkd",), start=0, **options):
    ratio = LossRatio(prefixes, **options)
    caplog.clear()
    for iteration, losses in enumerate(steps, start):
        ratio.update(iteration, losses)
    return caplog.messages


LARGE = {"loss_cls": 1.0, "loss_rpn_cls": 3.0, "loss_dkd_stage0": 100.0, "loss_dkd_stage1": 65.0}
USUAL = {**LARGE, "loss_dkd_stage0": 2.0, "loss_dkd_stage1": 2.0}


def test_the_sums_of_many_steps_are_compared_once(caplog):
    [text] = _warnings(caplog, 3 * FIRST_STEPS * [LARGE])
    assert "loss_dkd is 165 and the task's own losses are 4, medians of the first 20" in text
    assert not _warnings(caplog, 3 * FIRST_STEPS * [USUAL])
    mostly = [LARGE, USUAL, LARGE, USUAL, LARGE] * (FIRST_STEPS // 5)
    assert len(_warnings(caplog, mostly)) == 1
    assert not _warnings(caplog, [USUAL, LARGE, USUAL, LARGE, USUAL] * (FIRST_STEPS // 5))


def test_what_is_not_compared(caplog):
    """A run that goes on, a task without a weight, another family's ratio, and plain runs."""
    assert not _warnings(caplog, FIRST_STEPS * [LARGE], start=FIRST_STEPS)
    assert not _warnings(caplog, FIRST_STEPS * [LARGE], start=FIRST_STEPS // 2)
    assert not _warnings(caplog, FIRST_STEPS * [{"loss_cls": 0.0, "loss_dkd": 2.0}])
    assert not _warnings(caplog, FIRST_STEPS * [LARGE], max_ratio=50.0)
    assert not _warnings(caplog, FIRST_STEPS * [LARGE], prefixes=())


@pytest.mark.parametrize("read_period", [1, 7, 100])
def test_in_training_whenever_losses_are_read(caplog, read_period):
    options = {"methods": ("KD",), "read_period": read_period, "max_iter": 2 * FIRST_STEPS}
    with caplog.at_level(logging.WARNING):
        run(make(factor=11.0, **options), 2 * FIRST_STEPS)
    [text] = caplog.messages
    assert text.startswith("loss_kd is ")
    caplog.clear()
    run(make(factor=11.0, max_ratio=12.0, **options), 2 * FIRST_STEPS)
    assert not caplog.messages

import logging

import pytest

from eakd_det.engine.train_step.loss_ratio import FIRST_STEPS, LossRatio, loss_names

from .test_step import make, run


def _messages(caplog, steps, *, names=("loss_dkd",), start=0, **options):
    """Return the levels and the messages that a run of these steps logs."""
    ratio = LossRatio(names, **options)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for iteration, losses in enumerate(steps, start):
            is_last = iteration + 1 == start + len(steps)
            ratio.update(iteration, losses, is_last=is_last)
    return [(record.levelname, record.message) for record in caplog.records]


LARGE = {"loss_cls": 1.0, "loss_rpn_cls": 3.0, "loss_dkd_stage0": 100.0, "loss_dkd_stage1": 65.0}
USUAL = {**LARGE, "loss_dkd_stage0": 2.0, "loss_dkd_stage1": 1.0}


def test_the_sums_of_many_steps_are_compared_once(caplog):
    [(_, line), (level, text)] = _messages(caplog, 3 * FIRST_STEPS * [LARGE])
    start = "Losses relative to the task's own, 4, as medians of the first 100 iterations"
    assert line == f"{start}: loss_dkd 41.2"
    assert level == "WARNING"
    assert "loss_dkd is 165 and the task's own losses are 4, medians of the first 100" in text
    assert _messages(caplog, 3 * FIRST_STEPS * [USUAL]) == [("INFO", f"{start}: loss_dkd 0.75")]
    mostly = [LARGE, USUAL, LARGE, USUAL, LARGE] * (FIRST_STEPS // 5)
    assert len(_messages(caplog, mostly)) == 2
    assert len(_messages(caplog, [USUAL, LARGE, USUAL, LARGE, USUAL] * (FIRST_STEPS // 5))) == 1


def test_a_shorter_run_is_compared_at_its_end(caplog):
    [(_, line), (_, warning)] = _messages(caplog, 3 * [LARGE])
    assert "medians of the first 3 iterations: loss_dkd 41.2" in line
    assert "medians of the first 3 iterations" in warning


def test_each_method_has_its_losses_and_stock_names_are_the_task_s(caplog):
    """Detectron2's loss_box_reg and loss_rpn_cls start with the names of BOX's and RPN's losses."""
    names = loss_names(["BOX", "RPN", "KD", "FCFD"])
    assert names == ("loss_box", "loss_rpn", "loss_kd", "loss_fcfd")
    task = {"loss_box_reg": 1.0, "loss_box_reg_stage0": 1.0, "loss_rpn_cls": 1.0, "loss_rpn_loc": 1}
    methods = {"loss_box": 2.0, "loss_rpn": 4.0, "loss_kd_stage0": 1.0, "loss_kd_stage2": 3.0}
    methods |= {"loss_box_stage0": 2.0, "loss_fcfd_app": 3.0, "loss_fcfd_kd": 5.0}
    [(_, line)] = _messages(caplog, 2 * [task | methods], names=names)
    ratios = "loss_box 1, loss_rpn 1, loss_kd 1, loss_fcfd 2"
    assert line.endswith(f"own, 4, as medians of the first 2 iterations: {ratios}")


def test_what_is_not_compared(caplog):
    """A run that goes on, a task without a weight, another family's ratio, and plain runs."""
    assert not _messages(caplog, FIRST_STEPS * [LARGE], start=FIRST_STEPS)
    assert not _messages(caplog, FIRST_STEPS * [LARGE], start=FIRST_STEPS // 2)
    assert not _messages(caplog, 2 * [LARGE], start=1)
    assert not _messages(caplog, FIRST_STEPS * [{"loss_cls": 0.0, "loss_dkd": 2.0}])
    assert not _messages(caplog, FIRST_STEPS * [LARGE], names=())
    assert len(_messages(caplog, FIRST_STEPS * [LARGE], max_ratio=50.0)) == 1


@pytest.mark.parametrize("read_period", [1, 7, 200])
@pytest.mark.parametrize("number", [5, FIRST_STEPS + 20])
def test_in_training_whenever_losses_are_read(caplog, read_period, number):
    options = {"methods": ("KD",), "read_period": read_period, "max_iter": number}
    with caplog.at_level(logging.INFO):
        run(make(factor=11.0, **options), number)
    line, text = caplog.messages
    assert line.endswith(f"the first {min(number, FIRST_STEPS)} iterations: loss_kd 11")
    assert text.startswith("loss_kd is ")
    caplog.clear()
    run(make(factor=11.0, max_ratio=12.0, **options), number)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]

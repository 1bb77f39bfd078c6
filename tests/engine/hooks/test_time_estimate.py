import pytest
from detectron2.engine import TrainerBase
from detectron2.engine.hooks import IterationTimer

from eakd_det.engine.hooks.time_estimate import TimeEstimate, _format


class _Trainer(TrainerBase):
    def run_step(self):
        pass


def _train(caplog, start, end, *, eval_period=0):
    caplog.set_level("INFO")
    trainer = _Trainer()
    trainer.register_hooks([IterationTimer(), TimeEstimate(eval_period)])
    trainer.train(start, end)
    return [r.getMessage() for r in caplog.records if r.name.endswith("time_estimate")]


def test_one_line_after_twenty_steps(caplog):
    (line,) = _train(caplog, 0, 50, eval_period=15)
    assert line.startswith("Time of the training: about 0 s for 50 steps of ")
    assert line.endswith(" s, of which 0 s are left, and 3 evaluations.")


def test_a_resumed_run(caplog):
    (line,) = _train(caplog, 10, 50)
    assert "for 40 steps of " in line and line.endswith("are left.")


@pytest.mark.parametrize("steps", [5, 20])
def test_short_runs_have_none(caplog, steps):
    assert not _train(caplog, 0, steps)


def test_format():
    assert [_format(x) for x in (45.2, 720, 27000)] == ["45 s", "12 min", "7 h 30 min"]

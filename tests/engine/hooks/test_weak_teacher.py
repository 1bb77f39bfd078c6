import logging

import pytest
from detectron2.engine import HookBase, TrainerBase

from eakd_det.engine.hooks.weak_teacher import weak_teacher


class _Trainer(TrainerBase):
    def run_step(self):
        pass


class _Evaluation(HookBase):
    """Evaluates every second iteration and at the end; AP rises."""

    def after_step(self):
        if self.trainer.iter % 2:
            self.trainer.storage.put_scalar("bbox/AP", 10.0 + self.trainer.iter)

    def after_train(self):
        self.trainer.storage.put_scalar("bbox/AP", 10.0 + self.trainer.iter)


@pytest.mark.parametrize(
    ("of_teacher", "start", "end", "value"),
    [
        (10.5, 0, 6, "11.00"),
        (12.0, 0, 6, None),  # surpassed later alone
        (10.5, 0, 1, "11.00"),  # the one at the end is the first
        (10.5, 2, 6, None),  # another start had the first
    ],
)
def test_the_first_evaluation_counts(caplog, of_teacher, start, end, value):
    trainer = _Trainer()
    hook = weak_teacher("bbox/AP", {"bbox": {"AP": of_teacher}})
    trainer.register_hooks([_Evaluation(), hook])
    with caplog.at_level(logging.WARNING, "detectron2"):
        trainer.train(start, end)
    assert len(caplog.messages) == (value is not None)
    if value:
        assert caplog.messages[0].startswith("The student's first evaluation, at iteration 1, ")
        assert f"bbox/AP {value}, more than its teacher's 10.50" in caplog.messages[0]


def test_a_metric_that_the_teacher_has_not():
    assert weak_teacher("segm/AP", {"bbox": {"AP": 1.0}}) is None
    assert weak_teacher("bbox/AP", {}) is None, "another process than the main one"

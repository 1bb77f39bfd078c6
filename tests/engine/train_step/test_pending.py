import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from eakd_det.engine.train_step.pending import PendingStep, read_steps, write_steps


def _steps(names, factor=1.0):
    steps = []
    for iteration in range(3):
        losses = factor * (iteration + torch.arange(1.0, len(names) + 1))
        has_gradient, no = dict.fromkeys(names, True), torch.tensor(False)
        options = {"losses": losses, "has_gradient": has_gradient, "is_skipped": no}
        steps.append(PendingStep(iteration, factor * (iteration + 0.5), **options))
    read_steps(steps)
    return steps


@pytest.mark.parametrize("names", [("loss_cls", "loss_kd"), ("loss_ce",)])
def test_steps_are_written_as_detectron2_writes_each(names):
    steps = _steps(names)
    with EventStorage() as stock:
        for step in steps:
            SimpleTrainer.write_metrics(step.values, step.data_time, step.iteration)
    with EventStorage() as ours:
        write_steps(steps)
    assert ours.histories().keys() == stock.histories().keys()
    for name, history in stock.histories().items():
        assert ours.history(name).values() == history.values(), name


def test_processes_send_all_steps_at_once(monkeypatch):
    """The first one writes their means, and the longest time of the data."""
    sent = []
    monkeypatch.setattr(comm, "gather", sent.append)
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    with EventStorage() as other:
        write_steps(_steps(("loss_cls", "loss_kd"), factor=3.0))
    assert other.histories().keys() == {"rank_data_time"}
    monkeypatch.setattr(comm, "gather", lambda own: [own, *sent])
    monkeypatch.setattr(comm, "is_main_process", lambda: True)
    with EventStorage() as storage:
        write_steps(_steps(("loss_cls", "loss_kd")))
    assert len(sent) == 1
    assert storage.history("loss_cls").values() == [(2.0, 0), (4.0, 1), (6.0, 2)]
    assert storage.history("total_loss").values() == [(6.0, 0), (10.0, 1), (14.0, 2)]
    assert storage.history("data_time").values() == [(1.5, 0), (4.5, 1), (7.5, 2)]

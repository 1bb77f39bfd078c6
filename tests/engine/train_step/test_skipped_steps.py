"""Steps with losses or gradients that are not finite."""

import logging
import math

import pytest
import torch
from torch import nn

from eakd_det.engine.train_step.skipped_steps import MAX_IN_A_ROW
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.utils.errors import UserError

from .test_step import run


class _Model(nn.Module):
    """A batch norm and a linear model, with the fault that a batch asks for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, batch):
        x, fault = batch
        if fault == "loss":
            x = x * math.nan
        loss = self.linear(self.norm(x)).float().square().mean()
        if fault == "gradient":
            loss = loss + (0 * self.linear.weight).sqrt().sum()
        if fault == "error":
            raise FloatingPointError("Training has diverged.")
        return {"loss_cls": loss}


def _make(faults, *, optimizer=torch.optim.SGD, **options):
    model = _Model()
    settings = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    optimizer = optimizer(model.parameters(), lr=0.1, weight_decay=0.1, **settings)
    generator = torch.Generator().manual_seed(1)
    # A faulty batch comes in between and takes none of the others' numbers.
    batches = [
        (torch.ones(5, 4) if f else torch.randn(5, 4, generator=generator), f) for f in faults
    ]
    step = DistillStep(model, batches, optimizer, describe=lambda _: ["a.png"], **options)
    return step, len(faults)


def _states(step):
    return step.optimizer.state_dict()["state"]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("read_period", [1, 3, 100])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("faults", [["gradient", "", "", ""], ["", "gradient", "gradient", ""]])
def test_a_gradient_that_is_not_finite_is_left_out(faults, optimizer, read_period, fused):
    """Weights, momentum and decay go on as if the step had not been, read or not."""
    options = {"optimizer": optimizer, "fused": fused}
    faulty, iterations = _make(faults, read_period=read_period, **options)
    storage = run(faulty, iterations)
    clean, iterations = _make(["" for f in faults if not f], **options)
    run(clean, iterations)
    torch.testing.assert_close(
        dict(faulty.model.named_parameters()),
        dict(clean.model.named_parameters()),
        rtol=0,
        atol=0,
    )
    torch.testing.assert_close(_states(faulty), _states(clean), rtol=0, atol=0)
    assert faulty.model.norm.num_batches_tracked == len(faults), "its forward pass was sound"
    assert "left_out_steps" not in storage.latest(), "it is told every LOG_PERIOD"


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("read_period", [1, 100])
def test_float16_leaves_it_out_too(caplog, read_period, fused):
    options = {"precision": torch.float16, "read_period": read_period, "max_iter": 4}
    options["fused"] = fused
    faulty, iterations = _make(["", "gradient", "", ""], **options)
    clean, _ = _make(["", "", ""], **options)
    for step in (faulty, clean):  # what it starts with overflows here
        step.grad_scaler.load_state_dict({**step.grad_scaler.state_dict(), "scale": 128.0})
    with caplog.at_level(logging.INFO):
        storage = run(faulty, iterations)
    run(clean, 3)
    torch.testing.assert_close(
        dict(faulty.model.named_parameters()),
        dict(clean.model.named_parameters()),
        rtol=1e-3,
        atol=1e-4,
    )
    assert faulty.grad_scaler.get_scale() == 64
    assert storage.latest()["left_out_steps"] == (1, 3)
    [told] = [r for r in caplog.records if "skipped" in r.message]
    assert told.levelno == logging.INFO and "a few are usual" in told.message


@pytest.mark.parametrize("read_period", [1, 20])
def test_they_are_counted_and_told(caplog, read_period):
    """Whenever losses are read."""
    faults = ["gradient" if i in (3, 7, 21) else "" for i in range(22)]
    step, iterations = _make(faults, read_period=read_period, max_iter=22)
    with caplog.at_level(logging.WARNING):
        storage = run(step, iterations)
    first, last = caplog.messages
    assert "The gradients of 2 of the last 20 steps were not finite, at iteration 3, 7" in first
    assert "at iteration 21: these steps were skipped, 3 so far. A lower" in last
    assert storage.history("left_out_steps").values() == [(2, 19), (3, 21)]
    other, _ = _make([])
    other.load_state_dict(step.state_dict())
    assert other.skipped_steps.number == 3


def test_a_run_that_learns_nothing_stops():
    step, iterations = _make(["", *["gradient"] * MAX_IN_A_ROW])
    before = step.model.linear.weight.clone()
    with pytest.raises(UserError, match="100 steps in a row, up to iteration 100, were not finite"):
        run(step, iterations)
    assert not torch.equal(step.model.linear.weight, before)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("fault", "what"), [("loss", "loss_cls is nan"), ("error", "has diverged")]
)
@pytest.mark.parametrize("read_period", [1, 3])
def test_the_saved_model_is_as_before(tmp_path, read_period, fault, what, precision, fused):
    """Running statistics are part of it; later steps, too, start from there."""
    options = {"read_period": read_period, "precision": precision, "fused": fused}
    step, _ = _make(["", fault, ""], output_dir=str(tmp_path), **options)
    with pytest.raises(UserError) as error:
        run(step, 3)
    assert "At iteration 1 " in str(error.value) and what in str(error.value)
    later = read_period > 1 and fault == "loss"
    clean, iterations = _make(["", ""] if later else [""], **options)
    run(clean, iterations)
    saved = torch.load(tmp_path / "non_finite_rank0.pth", weights_only=True)
    assert saved["iteration"] == 1 and saved["images"] == ["a.png"]
    expected = clean.model.state_dict()
    if later:  # the last step's losses were read before it was taken
        expected = {k: v for k, v in expected.items() if "norm." in k and "running" in k}
    torch.testing.assert_close({k: saved["model"][k] for k in expected}, expected, rtol=0, atol=0)
    assert all(x.isfinite().all() for x in saved["model"].values())


def test_an_error_tells_of_the_loss_before(tmp_path):
    """A loss that is not finite and not yet read is the cause of what comes later."""
    step, _ = _make(["", "loss", "error"], read_period=100, output_dir=str(tmp_path))
    with pytest.raises(UserError, match="At iteration 1 loss_cls is nan"):
        run(step, 3)

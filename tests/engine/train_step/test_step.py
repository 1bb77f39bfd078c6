import logging

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from eakd_det.engine.train_step.step import DistillStep
from eakd_det.engine.train_step.zero_losses import PATIENCE
from eakd_det.utils.errors import UserError
from tests.reads import Operators, reads


class _Model(nn.Module):
    """A linear model whose losses are what the sample asks for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)
        self.seen_dtypes = []

    def forward(self, batch):
        output = self.linear(torch.stack([sample["x"] for sample in batch]))
        self.seen_dtypes.append(output.dtype)
        loss = output.float().square().mean()
        factor = sum(sample["factor"] for sample in batch) / len(batch)
        return {"loss_cls": loss, "loss_kd_stage0": factor * loss}


def batches(size, factor=1.0):
    generator = torch.Generator().manual_seed(1)
    image_id = 0
    while True:
        batch = []
        for _ in range(size):
            image_id += 1
            x = torch.randn(4, generator=generator)
            name = f"{image_id}.png"
            batch.append({"x": x, "factor": factor, "image_id": image_id, "file_name": name})
        yield batch


def make(size=4, factor=1.0, **options):
    model = _Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return DistillStep(model, batches(size, factor), optimizer, **options)


def run(step, iterations=3):
    with EventStorage() as storage:
        for step.iter in range(iterations):
            storage.iter = step.iter
            step.run_step()
    return storage


def test_micro_batches_equal_the_whole():
    whole, parts = make(size=4), make(size=2, accumulate=2)
    of_whole, of_parts = run(whole), run(parts)
    torch.testing.assert_close(parts.model.state_dict(), whole.model.state_dict())
    for name in ("loss_cls", "loss_kd_stage0", "total_loss"):
        got, expected = of_parts.latest()[name][0], of_whole.latest()[name][0]
        assert got == pytest.approx(expected, rel=1e-5)


def _scale(step, value):
    """Start with a small scale: the first steps would be skipped with float16's default."""
    state = step.grad_scaler.state_dict()
    step.grad_scaler.load_state_dict({**state, "scale": value} if state else {})


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_precision(precision):
    step, exact = make(precision=precision), make()
    _scale(step, 128.0)
    run(step), run(exact)
    assert step.model.seen_dtypes == [precision] * 3
    assert step.grad_scaler.is_enabled() == (precision == torch.float16)
    assert next(step.model.parameters()).dtype == torch.float32
    torch.testing.assert_close(
        step.model.state_dict(), exact.model.state_dict(), atol=0.02, rtol=0.02
    )


def test_state_has_the_scaler():
    step, other = make(precision=torch.float16), make(precision=torch.float16)
    _scale(step, 128.0)
    run(step, 1)
    other.load_state_dict(step.state_dict())
    assert other.grad_scaler.get_scale() == 128.0
    momentum = step.optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(other.optimizer.state_dict()["state"][0]["momentum_buffer"], momentum)
    make().load_state_dict(make().state_dict())  # nothing scaled, nothing to load


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, value):
    step = make(size=2, factor=value, accumulate=2, output_dir=str(tmp_path))
    before = {name: x.clone() for name, x in step.model.state_dict().items()}
    with pytest.raises(UserError) as error:
        run(step)
    message = str(error.value)
    assert f"At iteration 0 loss_kd_stage0 is {value}" in message
    assert "loss_cls" not in message
    assert "1 (1.png), 2 (2.png), 3 (3.png), 4 (4.png)" in message
    [path] = tmp_path.iterdir()
    assert str(path) in message
    saved = torch.load(path, weights_only=True)
    torch.testing.assert_close(saved["model"], before)
    torch.testing.assert_close(step.model.state_dict(), before)
    assert saved["images"][0] == "1 (1.png)"


def test_reading_seldom_trains_and_logs_the_same():
    always, seldom = make(), make(read_period=3, max_iter=5)
    logged, later = run(always, 5), run(seldom, 5)
    assert not seldom.pending, "what was left over is read after the last iteration"
    for name, value in always.model.state_dict().items():
        assert torch.equal(seldom.model.state_dict()[name], value)
    for name in ("loss_cls", "loss_kd_stage0", "total_loss"):
        assert later.history(name).values() == logged.history(name).values()


def test_no_scalar_is_read_between_reads():
    step = make(read_period=3)
    seen = []
    with EventStorage():
        for step.iter in range(6):
            with Operators(torch.ops.aten.nonzero) as more, reads() as names:
                step.run_step()
            seen.append(len(names) + len(more.seen))
    assert seen[0] == seen[1] == seen[3] == seen[4] == 0
    assert seen[2] > 0 and seen[5] > 0, "this test could not see a read"


def test_a_loss_that_is_not_finite_is_read_later(tmp_path):
    step = make(size=1, read_period=4, output_dir=str(tmp_path))
    healthy = step.data_loader
    bad = {**next(healthy)[0], "factor": float("nan")}
    step.data_loader = [next(healthy), [bad], next(healthy), next(healthy)]
    with pytest.raises(UserError) as error:
        run(step, 4)
    assert "At iteration 1 loss_kd_stage0 is nan, with the images 1 (1.png)." in str(error.value)
    assert "The model 2 steps later, which this one did not change, is" in str(error.value)
    [path] = tmp_path.iterdir()
    saved = torch.load(path, weights_only=True)
    assert saved["iteration"] == 1
    assert all(x.isfinite().all() for x in saved["model"].values())


@pytest.mark.parametrize(("methods", "warnings"), [(("KD",), 1), (("DKD",), 0), ((), 0)])
def test_a_loss_that_stays_zero_is_warned_about_once(caplog, methods, warnings):
    step = make(factor=0.0, methods=methods)
    with caplog.at_level(logging.WARNING):
        run(step, PATIENCE - 1)
        assert not caplog.records
        step = make(factor=0.0, methods=methods)
        run(step, 2 * PATIENCE)
    assert len(caplog.records) == warnings
    if warnings:
        assert "loss_kd_stage0 has been 0 for 20 iterations" in caplog.text


def test_a_loss_without_gradient_is_warned_about(caplog):
    step = make(methods=("CLS",))
    step.model.linear.requires_grad_(False)
    extra = nn.Parameter(torch.ones(()))
    forward = step.model.forward
    step.model.forward = lambda batch: {**forward(batch), "loss_other": extra * 1.0}
    with caplog.at_level(logging.WARNING):
        run(step, PATIENCE)
    assert "loss_cls has been without a gradient for 20 iterations" in caplog.text

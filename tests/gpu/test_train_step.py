"""Steps of a detector that are not finite."""

import math

import pytest
import torch
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage

from eakd_det.engine.train_step.step import DistillStep
from eakd_det.utils.errors import UserError

from .detectors import build

READ_PERIOD = 4


@pytest.fixture
def cfg(retina_cfg, device):
    """A RetinaNet, which does not check its boxes itself."""
    retina_cfg.MODEL.DEVICE = str(device)
    return retina_cfg


def _make(cfg, batches, **options):
    model = build(cfg)
    optimizer = build_optimizer(cfg, model)
    return DistillStep(model, batches, optimizer, read_period=READ_PERIOD, **options)


def _steps(step, iterations):
    """Run steps; yield after each."""
    with EventStorage() as storage:
        for step.iter in range(iterations):
            storage.iter = step.iter
            step.run_step()
            yield step.iter


def _weights(step):
    return {name: x.detach().clone() for name, x in step.model.named_parameters()}


def _equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("precision", [None, torch.float16], ids=str)
def test_a_loss_that_is_not_finite_is_named_when_it_is_read(cfg, batch, tmp_path, precision):
    """The weights are as before it, and so are the running statistics."""
    nan = [{**x, "image": torch.full(x["image"].shape, math.nan)} for x in batch]
    batches = [batch, nan, batch, batch]
    for number, images in enumerate(batches):
        batches[number] = [
            {**x, "image_id": 10 * number + i, "file_name": f"{number}-{i}.png"}
            for i, x in enumerate(images)
        ]
    step = _make(cfg, batches, precision=precision, output_dir=str(tmp_path))
    steps, seen = _steps(step, len(batches)), {}
    with pytest.raises(UserError) as error:
        for iteration in steps:
            seen[iteration] = _weights(step)
            buffers = {name: x.clone() for name, x in step.model.named_buffers()}
    assert list(seen) == [0, 1, 2], "it is read with the last"
    assert _equal(seen[1], seen[0]) and not _equal(seen[2], seen[1])
    assert all(x.isfinite().all() for x in buffers.values())
    message = str(error.value)
    assert message.startswith("At iteration 1 ") and "loss_cls is nan" in message
    assert "with the images 10 (1-0.png), 11 (1-1.png)." in message
    assert "The model 2 steps later, which this one did not change, is saved" in message
    saved = torch.load(tmp_path / "non_finite_rank0.pth", weights_only=True)
    assert all(x.isfinite().all() for x in saved["model"].values())


def test_a_gradient_that_is_not_finite_is_left_out(cfg, batch):
    step = _make(cfg, [batch] * READ_PERIOD, max_iter=READ_PERIOD)
    step.model.head.cls_score.weight.register_hook(
        lambda gradient: gradient * math.inf if step.iter == 1 else gradient
    )
    before, changed = _weights(step), []
    for _ in _steps(step, READ_PERIOD):
        now = _weights(step)
        changed.append(not _equal(now, before))
        before = now
    assert changed == [True, False, True, True]
    assert step.skipped_steps.number == 1
    states = step.optimizer.state_dict()["state"].values()
    assert all(state["momentum_buffer"].isfinite().all() for state in states)


def test_float16_halves_its_scale_for_a_gradient_that_overflows(cfg, batch):
    step = _make(cfg, [batch] * 2, precision=torch.float16, max_iter=2)
    for scale, is_trained in [(2.0**70, False), (128.0, True)]:
        step.grad_scaler.load_state_dict({**step.grad_scaler.state_dict(), "scale": scale})
        before = _weights(step)
        for _ in _steps(step, 1):
            assert _equal(_weights(step), before) is not is_trained
        assert step.grad_scaler.get_scale() == (scale if is_trained else scale / 2)

"""Fused optimizers: on a CPU, whose kernels leave out steps as those of a GPU do."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver import build_optimizer
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from eakd_det.engine.train_step.fused import fuse, keep_implementation, step_unless
from tests.reads import Operators, reads

from .test_step import make, run

KERNELS = (torch.ops.aten._fused_sgd_, torch.ops.aten._fused_adam_, torch.ops.aten._fused_adamw_)
KINDS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "plain SGD": lambda p: torch.optim.SGD(p, lr=0.1, foreach=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
}


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))


def _gradients(model, seed, factor=1.0):
    images = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    (factor * model(images).square().sum()).backward()


def _train(model, optimizer, steps, skipped=()):
    for seed in range(steps):
        _gradients(model, seed)
        step_unless(optimizer, torch.tensor(seed in skipped))


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_as_the_other_kernels(kind):
    ours, theirs = _model(), _model()
    optimizer, other = KINDS[kind](ours.parameters()), KINDS[kind](theirs.parameters())
    assert fuse(optimizer)
    with Operators(*KERNELS) as kernels:
        _train(ours, optimizer, 3)
    assert len(kernels.seen) == 3
    for seed in range(3):
        _gradients(theirs, seed)
        other.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("skipped", [(0,), (1, 2), (0, 1, 2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_left_out(kind, skipped):
    """Bit for bit, with what the optimizer counts and averages, and without reading anything."""
    faulty, clean = _model(), _model()
    optimizer, other = KINDS[kind](faulty.parameters()), KINDS[kind](clean.parameters())
    assert fuse(optimizer) and fuse(other)
    for seed in range(4):
        _gradients(faulty, seed, factor=torch.nan if seed in skipped else 1.0)
        with reads() as names:
            step_unless(optimizer, torch.tensor(seed in skipped))
        assert not names
        if seed not in skipped:
            _gradients(clean, seed)
            step_unless(other, torch.tensor(False))
    torch.testing.assert_close(faulty.state_dict(), clean.state_dict(), rtol=0, atol=0)
    for p, q in zip(faulty.parameters(), clean.parameters(), strict=True):
        for name, x in optimizer.state[p].items():
            expected = other.state[q].get(name, torch.zeros_like(x))
            assert torch.equal(x, expected), name


def test_a_weight_may_get_its_first_gradient_late():
    model = _model()
    optimizer = KINDS["SGD"](model.parameters())
    fuse(optimizer)
    model[0].requires_grad_(False)
    _train(model, optimizer, 1)
    before = model[0].weight.clone()
    model[0].requires_grad_(True)
    _train(model, optimizer, 1)
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize(("clip_type", "value"), [("value", 1e-3), ("norm", 1e-2)])
def test_gradients_are_clipped_as_detectron2_does(clip_type, value):
    cfg, changed = get_cfg(), {}
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = clip_type, value
    for name in ("fused", "stock", "unclipped"):
        model = _model()
        optimizer = build_optimizer(cfg, model)
        if name != "stock":
            assert fuse(optimizer)
            _train(model, optimizer, 3, skipped=(1,))
        else:
            for seed in (0, 2):
                _gradients(model, seed)
                optimizer.step()
        changed[name] = model.state_dict()
        cfg.SOLVER.CLIP_GRADIENTS.ENABLED = name == "fused"
    torch.testing.assert_close(changed["fused"], changed["stock"])
    assert not torch.equal(changed["fused"]["0.weight"], changed["unclipped"]["0.weight"])


class _OwnStep(torch.optim.SGD):
    def step(self, closure=None):
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.sub_(p.grad.sign())


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda p: torch.optim.Adagrad(p),
        lambda p: torch.optim.RMSprop(p),
        lambda p: torch.optim.SGD(p, momentum=0.9, dampening=0.5),
        lambda p: torch.optim.Adam(p, differentiable=True),
        lambda p: _OwnStep(p),
    ],
)
def test_others_are_left_as_they_are(make_optimizer):
    optimizer = make_optimizer(_model().parameters())
    before = copy.deepcopy(optimizer.param_groups)
    assert not fuse(optimizer)
    assert str(optimizer.param_groups) == str(before)
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    assert not fuse(maybe_add_gradient_clipping(cfg, optimizer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_fused", [False, True])
def test_a_checkpoint_of_other_kernels(kind, is_fused):
    """The run's kernels go on with the weights, counts and averages of the checkpoint."""
    model, other = _model(), _model()
    optimizer, saved = KINDS[kind](model.parameters()), KINDS[kind](other.parameters())
    fuse(optimizer if is_fused else saved)
    keep_implementation(optimizer)
    flags = [(g["fused"], g["foreach"]) for g in optimizer.param_groups]
    for seed in range(2):
        _gradients(other, seed)
        saved.step()
    state = copy.deepcopy(saved.state_dict())
    optimizer.load_state_dict(state)
    model.load_state_dict(other.state_dict())
    assert [(g["fused"], g["foreach"]) for g in optimizer.param_groups] == flags
    assert str(state["param_groups"]) == str(saved.state_dict()["param_groups"])
    for each, its in ((model, optimizer), (other, saved)):
        _gradients(each, 2)
        its.step()
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_a_checkpoint_with_other_groups_is_refused():
    optimizer = KINDS["SGD"](_model().parameters())
    keep_implementation(optimizer)
    saved = torch.optim.SGD([{"params": [p]} for p in _model().parameters()], lr=0.1)
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(saved.state_dict())


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_a_checkpoint_of_another_memory_format(kind):
    """Kernels take the elements of a weight and of its state in the order of the memory."""
    model, other = _model().to(memory_format=torch.channels_last), _model()
    optimizer, saved = KINDS[kind](model.parameters()), KINDS[kind](other.parameters())
    assert fuse(optimizer) and fuse(saved)
    keep_implementation(optimizer)
    _train(other, saved, 2)
    model.load_state_dict(other.state_dict())
    optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
    for each, its in ((model, optimizer), (other, saved)):
        _train(each, its, 2)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[0].weight.stride() == model[0].weight.grad.stride()
    torch.testing.assert_close(model.state_dict(), other.state_dict())


def test_float16_reads_nothing_and_copies_no_weights():
    step = make(precision=torch.float16, read_period=100, fused=True)
    with Operators(torch.ops.aten.cat, torch.ops.aten.where) as copies, reads() as names:
        run(step, 3)
    assert not names and not copies.seen
    assert step.grad_scaler.get_scale() == 2.0**15, "the first step overflows here"


def test_on_a_cpu_it_is_off():
    step = make()
    assert not step.optimizer.param_groups[0]["fused"]
    run(step, 1)
    assert step.optimizer.param_groups[0]["foreach"] is None

"""Training steps of each family of detectors: precisions, and agreement with the CPU."""

import math

import pytest
import torch

from .detectors import (
    FAMILIES,
    add_masks,
    build,
    first_step,
    losses_of,
    run,
    set_family,
    take_all_samples,
)

# In float32 sums in another order differ by 1e-6 of the largest value; where that moves an
# activation across 0, the gradient of its unit changes.
LOSS = 1e-4  # relative
GRADIENT = 1e-2  # norm of the difference, relative to that of the gradient
NOISE = 1e-5  # the same, relative to the norm of all gradients


@pytest.fixture
def cfg(request, distill_cfg, teacher_cfg, device, tmp_path):
    """The config of the family that a test names, with all of its methods."""
    if request.param == "retinanet":
        cfg = request.getfixturevalue("retina_cfg")
    else:
        cfg = distill_cfg
        set_family(cfg, request.param, teacher_cfg, tmp_path)
        cfg.DISTILL.METHODS = ("KD", "DKD", "REVIEWKD")
    cfg.MODEL.DEVICE = str(device)
    return cfg


each_family = pytest.mark.parametrize("cfg", FAMILIES, indirect=True)


@each_family
@pytest.mark.parametrize("precision", [None, torch.float16, torch.bfloat16], ids=str)
def test_steps(cfg, batch, device, precision):
    """The losses are finite, every weight that trains changes, and the teacher's do not."""
    add_masks(batch)
    cfg.TEACHER.FAST = False  # which would change its weights
    fresh = build(cfg)
    step, storage = run(cfg, batch, 2, precision=precision, methods=cfg.DISTILL.METHODS)
    losses = losses_of(storage)
    assert all(any(n.startswith(f"loss_{m.lower()}") for n in losses) for m in cfg.DISTILL.METHODS)
    assert all(map(math.isfinite, losses.values())), losses
    assert step.skipped_steps.number == 0
    for (name, ours), (_, before) in zip(
        step.model.named_parameters(), fresh.named_parameters(), strict=True
    ):
        assert ours.device.type == device.type
        if ours.requires_grad and "bias" not in name:  # a batch norm cancels that of some biases
            assert not torch.equal(ours, before), name
    theirs, before = (model.teacher.model.state_dict() for model in (step.model, fresh))
    assert all(torch.equal(theirs[name], before[name]) for name in before)


def _assert_equals_the_cpu_s(cfg, batch, device):
    take_all_samples(cfg)
    losses, gradients, proposals = first_step(cfg, batch, "cpu")
    on_device, its_gradients, _ = first_step(cfg, batch, device, proposals)
    assert on_device == pytest.approx(losses, rel=LOSS, abs=1e-6)
    assert its_gradients.keys() == gradients.keys()
    whole = torch.stack([x.norm() for x in gradients.values()]).norm()
    for name, expected in gradients.items():  # a batch norm cancels that of some biases, to noise
        difference = (its_gradients[name] - expected).norm()
        assert difference <= GRADIENT * expected.norm() + NOISE * whole, name


@each_family
def test_losses_and_gradients_are_those_of_the_cpu(cfg, batch, device, storage, full_float32):
    add_masks(batch)
    _assert_equals_the_cpu_s(cfg, batch, device)


@pytest.mark.parametrize("cfg", ["faster"], indirect=True)
@pytest.mark.parametrize(
    ("methods", "ea"),
    [
        (("KD",), False),
        (("DKD",), False),
        (("DKD",), True),
        (("REVIEWKD",), True),
        (("DIST", "NKD"), True),
        (("BOX", "RPN"), True),
        (("FCFD",), True),
        (("CWD", "PKD", "FGD"), True),  # the masks of MGD are others on each device
    ],
)
def test_each_method_s_are_too(cfg, batch, device, storage, full_float32, methods, ea):
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, ea
    _assert_equals_the_cpu_s(cfg, batch, device)

import pytest
import torch

from eakd_det.distillers import DISTILLERS, EA_MODES, View, scalar_defaults
from eakd_det.losses import dkd_loss, entropy, entropy_weight, kd_loss


@pytest.fixture
def views():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, 4, generator=generator)
    return View(features={}, logits=logits[0]), View(features={}, logits=logits[1])


def test_methods_call_their_losses(views):
    student, teacher = views
    labels, weight = torch.arange(7) % 4, torch.rand(7)
    kd = DISTILLERS["KD"](student, teacher, labels, weight, temperature=2.0)
    expected = kd_loss(student.logits, teacher.logits, temperature=2.0, weight=weight)
    assert torch.equal(kd, expected)
    dkd = DISTILLERS["DKD"](student, teacher, labels, None, alpha=0.5, beta=3.0)
    assert torch.equal(dkd, dkd_loss(student.logits, teacher.logits, labels, alpha=0.5, beta=3.0))


def test_modes(views):
    student, teacher = (view.logits for view in views)
    options = {"temperature": 2.0, "bound": 5.0}
    full = EA_MODES["full"](student, teacher, **options)
    assert torch.equal(full, entropy_weight(student, teacher, **options))
    base = EA_MODES["teacher"](student, teacher, **options)
    assert torch.equal(base, entropy(teacher, temperature=2.0))
    matched = EA_MODES["matched"](student, teacher, **options)
    assert matched.shape == full.shape
    torch.testing.assert_close(matched, torch.full_like(full, full.mean().item()))


@pytest.mark.parametrize("mode", EA_MODES)
def test_weights_are_constants(views, mode):
    student, teacher = (view.logits.requires_grad_() for view in views)
    assert not EA_MODES[mode](student, teacher, temperature=2.0, bound=None).requires_grad


@pytest.mark.parametrize("mode", EA_MODES)
def test_no_sample(mode):
    empty = torch.zeros(0, 4)
    assert EA_MODES[mode](empty, empty, temperature=2.0, bound=None).shape == (0,)


def test_scalar_defaults():
    def function(a, b=1, *, c=2, d=3.0, e=None):
        pass

    assert scalar_defaults(function, leave_out=("e",)) == {"c": 2, "d": 3.0}

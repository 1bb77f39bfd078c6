import pytest
import torch
from torch.testing import assert_close

from eakd_det.distillers import EA_MODES
from eakd_det.losses import combine_entropies

from .batches import make_pair


def test_modes():
    student, teacher = make_pair().entropies(2.0)
    full = EA_MODES["full"](student, teacher, 4, 5.0)
    assert torch.equal(full, combine_entropies(student, teacher, 4, 5.0))
    assert torch.equal(EA_MODES["teacher"](student, teacher, 4, 5.0), teacher)
    matched = EA_MODES["matched"](student, teacher, 4, 5.0)
    assert_close(matched, torch.full_like(full, full.mean().item()))


@pytest.mark.parametrize("mode", EA_MODES)
def test_weights_are_constants(mode):
    pair = make_pair()
    pair.student_logits.requires_grad_()
    pair.teacher_logits.requires_grad_()
    assert not EA_MODES[mode](*pair.entropies(2.0), 4, None).requires_grad


@pytest.mark.parametrize("mode", EA_MODES)
def test_no_sample(mode):
    assert EA_MODES[mode](torch.zeros(0), torch.zeros(0), 4, None).shape == (0,)

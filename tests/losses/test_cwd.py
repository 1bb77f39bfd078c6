import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import cwd_loss

from .maps import MapCase, MapLossContract, each_dtype, make_maps


class TestCWD(MapLossContract):
    def loss(self, student, teacher, **options):
        return cwd_loss(student, teacher, temperature=2.5, **options)

    def slow_losses(self, student, teacher):
        """Channel by channel, as the paper's text has it."""
        total = torch.zeros(len(student[0]), dtype=torch.float64)
        for a, b in zip(student, teacher, strict=True):
            images, channels = a.shape[:2]
            each = [0.0] * images
            for n in range(images):
                for c in range(channels):
                    q, p = ((x[n, c] / 2.5).exp() for x in (a, b))
                    q, p = q / q.sum(), p / p.sum()
                    each[n] = each[n] + 2.5**2 * (p * (p / q).log()).sum() / channels
            total = total + torch.stack(each)
        return total


def test_one_position_gives_zero():
    [student], [teacher] = make_maps(2, [4], 1, [(1, 1)]), make_maps(2, [4], 2, [(1, 1)])
    student.requires_grad_()
    loss = cwd_loss([student], [teacher])
    loss.backward()
    assert loss == 0 and not student.grad.any()


def test_large_values_are_finite():
    student = [(1e4 * x.float()).requires_grad_() for x in make_maps(2, [4] * 5, 1)]
    loss = cwd_loss(student, [1e4 * x.float() for x in make_maps(2, [4] * 5, 2)])
    loss.backward()
    assert loss.isfinite() and all(x.grad.isfinite().all() for x in student)


def test_temperature_counts():
    maps = make_maps(2, [4] * 5, 1), make_maps(2, [4] * 5, 2)
    assert_close(cwd_loss(*maps), cwd_loss(*maps, temperature=1.0))
    assert cwd_loss(*maps) != cwd_loss(*maps, temperature=2.0)


@each_dtype
@pytest.mark.parametrize("name", ["frcnn", "retina_n1", "n3_tau4", "tau_half", "seg", "sharp"])
def test_golden(name, dtype):
    case = MapCase("cwd", name, dtype)
    temperature = case.get("tau")

    def loss(i, n):
        chosen = slice(None) if n is None else slice(n, n + 1)
        return cwd_loss(
            [case.student[i][chosen]], [case.teacher[i][chosen]], temperature=temperature
        )

    case.compare_losses(loss, factor=case.get("loss_weight"))
    if name == "frcnn":
        assert not case.student[4].grad.any()
    case.assert_all_used()

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.losses import MapAdapter, pkd_loss
from eakd_det.losses.pkd import normalize_channels
from tests.golden import golden

from .maps import MapCase, MapLossContract, each_dtype, make_maps


class TestPKD(MapLossContract):
    def loss(self, student, teacher, **options):
        return pkd_loss(student, teacher, **options)

    def slow_losses(self, student, teacher):
        """Channel by channel, with the statistics of all images."""
        total = torch.zeros(len(student[0]), dtype=torch.float64)
        for a, b in zip(student, teacher, strict=True):
            each = [0.0] * len(a)
            for c in range(a.shape[1]):
                rows = [self._standard(x[:, c]) for x in (a, b)]
                for n in range(len(a)):
                    each[n] = each[n] + ((rows[0][n] - rows[1][n]) ** 2).mean() / 2 / a.shape[1]
            total = total + torch.stack(each)
        return total

    def _standard(self, x):
        number = x.numel()
        variance = ((x - x.sum() / number) ** 2).sum() / (number - 1)
        return (x - x.sum() / number) / (variance**0.5 + 1e-6)


def test_scale_and_shift_of_channels_change_nothing():
    student, teacher = make_maps(2, [4] * 5, 1), make_maps(2, [4] * 5, 2)
    changed = [3.0 * x + 5.0 for x in student]
    assert_close(pkd_loss(changed, teacher), pkd_loss(student, teacher), rtol=1e-4, atol=0)


def test_is_one_minus_the_correlation():
    [student], [teacher] = make_maps(2, [4], 1, [(8, 10)]), make_maps(2, [4], 2, [(8, 10)])
    pairs = zip(student.transpose(0, 1), teacher.transpose(0, 1), strict=True)
    r = torch.stack([torch.corrcoef(torch.stack(p).flatten(1))[0, 1] for p in pairs])
    exact = 159 / 160 * (1 - r).mean()
    assert_close(pkd_loss([student], [teacher]), exact, rtol=1e-5, atol=0)


def test_one_value_a_channel_gives_zero():
    [student], [teacher] = make_maps(1, [4], 1, [(1, 1)]), make_maps(1, [4], 2, [(1, 1)])
    student.requires_grad_()
    loss = pkd_loss([student], [teacher])
    loss.backward()
    assert loss == 0 and student.grad.shape == student.shape and not student.grad.any()


def test_golden_single_value_is_nan():
    """It is 0 here, as shown above."""
    assert golden("features/pkd")["single_value_is_nan"].item() == 1


@each_dtype
@pytest.mark.parametrize("name", ["frcnn", "retina_n1", "n3_odd"])
def test_golden(name, dtype):
    case = MapCase("pkd", name, dtype)
    images = len(case.student[0])

    def loss(i, n):
        weight = None
        if n is not None:  # the batch's statistics stay
            weight = images * F.one_hot(torch.tensor(n), images).to(dtype)
        return pkd_loss([case.student[i]], [case.teacher[i]], weight=weight)

    for i, (student, teacher) in enumerate(zip(case.student, case.teacher, strict=True)):
        norms = [normalize_channels(x) for x in (student, teacher)]
        case.compare(f"student_norm{i}", norms[0])
        number = student.numel() / student.shape[1]
        case.compare(f"pearson{i}", (norms[0] * norms[1]).sum(dim=(0, 2, 3)) / (number - 1))
    case.compare_losses(loss, factor=case.get("loss_weight"))
    case.assert_all_used()


@each_dtype
@pytest.mark.parametrize(
    "name", ["resize_student_up", "resize_student_down", "resize_teacher", "flat_channel"]
)
def test_golden_sizes_and_flat_channels(name, dtype):
    case = MapCase("pkd", name, dtype)
    student, teacher = case.student, case.teacher
    if name == "resize_teacher":  # the adapter, used the other way round
        teacher = MapAdapter([4], [4])(teacher, [x.shape[-2:] for x in student])
    student = MapAdapter(*case.channels)(student, [x.shape[-2:] for x in teacher])
    case.used |= {"resize_student"} & set(case.arrays)
    case.compare_gradients(case.get("loss_weight") * pkd_loss(student, teacher))
    case.assert_all_used()

"""eakd_det.analysis.samples."""

import math

import torch

from eakd_det.analysis.samples import Samples

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
SAMPLES = Samples(torch.tensor([0, 1, 1]), LOGITS, torch.zeros(3, 2))


def test_the_likeliest_class_is_compared_with_the_label():
    assert SAMPLES.is_correct.tolist() == [True, False, False]


def test_entropy_of_equal_logits_is_log_c_whatever_the_temperature():
    for temperature in (1.0, 4.0):
        assert math.isclose(SAMPLES.entropy(temperature)[1], math.log(3), rel_tol=1e-6)


def test_the_weight_is_that_of_the_entropies():
    teacher = Samples(SAMPLES.labels, LOGITS.flip(0), SAMPLES.features)
    h_s, h_t = SAMPLES.entropy(3.0), teacher.entropy(3.0)
    expected = (h_t + h_t * h_s / math.log(3)) / 2
    assert torch.allclose(SAMPLES.weight(teacher, 3.0), expected)

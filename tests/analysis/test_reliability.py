import pytest
import torch

from eakd_det.analysis.reliability import NUM_BINS, ece_by_chance, measure_reliability


def test_ece_by_hand():
    """Bins (0.4, 0.467] with a gap of 0.56 and (0.867, 0.933] with one of 0.4."""
    confidence = torch.tensor([0.42, 0.46, 0.9, 0.9, 0.9, 0.9])
    found = measure_reliability(confidence, torch.tensor([True, True, True, True, False, False]))
    assert (found.number, found.correct) == ([2, 4], [2, 2])
    assert found.confidence == pytest.approx([0.44, 0.9])
    assert found.low == pytest.approx([6 / 15, 13 / 15])
    assert found.ece == pytest.approx(100 * (2 * 0.56 + 4 * 0.4) / 6)
    assert found.numbers()[1] == {
        "number": 4,
        "correct": 2,
        "confidence": pytest.approx(0.9),
        "low": pytest.approx(13 / 15),
    }


@pytest.mark.parametrize("number", [0, 1, 1000])
def test_ece_is_that_of_a_slow_reference(number):
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(number, generator=generator, dtype=torch.float64)
    is_correct = torch.rand(number, generator=generator) < 0.6
    total = 0.0
    for i in range(NUM_BINS):
        inside = [
            (p, right)
            for p, right in zip(confidence.tolist(), is_correct.tolist(), strict=True)
            if i / NUM_BINS < p <= (i + 1) / NUM_BINS
        ]
        total += abs(sum(right - p for p, right in inside))
    expected = 100 * total / max(number, 1)
    assert measure_reliability(confidence, is_correct).ece == pytest.approx(expected)


def test_edges_belong_to_the_bin_below():
    edges = torch.tensor([0.0, 1 / 15, 1 / 15 + 1e-6, 1.0], dtype=torch.float64)
    found = measure_reliability(edges, torch.ones(4, dtype=torch.bool))
    assert found.low == pytest.approx([0, 1 / 15, 14 / 15]) and found.number == [2, 1, 1]


def test_chance_falls_with_the_number_of_samples():
    generator = torch.Generator().manual_seed(0)
    confidence = 0.5 + torch.rand(8000, generator=generator) / 2
    few, many = ece_by_chance(confidence[:80]), ece_by_chance(confidence)
    assert few == pytest.approx(10 * many, rel=0.3)  # as 1 / sqrt(N)
    drawn = torch.rand(8000, generator=generator) < confidence
    assert measure_reliability(confidence, drawn).ece == pytest.approx(many, rel=0.5)
    assert ece_by_chance(torch.ones(80)) == 0

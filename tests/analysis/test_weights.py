"""eakd_det.analysis.weights and weight_figures."""

import json
import math

import pytest
import torch

from eakd_det.analysis.samples import Samples
from eakd_det.analysis.weights import measure_weights, weights_result

N, C = 60, 4


def random_samples(seed, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % C
    return Samples(labels, scale * torch.randn(N, C, generator=generator), torch.zeros(N, 2))


def test_measures_are_those_of_a_slow_reference():
    teacher, student = random_samples(2), random_samples(3)
    found = measure_weights(student, teacher, temperature=2.0)

    def entropy(logits):
        exponentials = [math.exp(z / 2) for z in logits.tolist()]
        return -sum(e / sum(exponentials) * math.log(e / sum(exponentials)) for e in exponentials)

    h_t, h_s = ([entropy(z) for z in of.logits] for of in (teacher, student))
    factors = [1 + b / math.log(C) for b in h_s]
    weights = [a * f / 2 for a, f in zip(h_t, factors, strict=True)]

    def variation(values):
        mean = sum(values) / N
        return math.sqrt(sum((v - mean) ** 2 for v in values) / (N - 1)) / mean

    def ranks(values):
        return [sorted(values).index(v) for v in values]

    def rank_correlation(x, y):
        between = sum((a - b) ** 2 for a, b in zip(ranks(x), ranks(y), strict=True))
        return 1 - 6 * between / (N * (N**2 - 1))

    mean = sum(weights) / N
    wrong = [w for w, right in zip(weights, student.is_correct.tolist(), strict=True) if not right]
    expected = {
        "mean": mean,
        "variation": variation(weights),
        "of_teacher": variation(h_t),
        "of_student": variation(factors),
        "order": rank_correlation(weights, h_t),
        "entropies": rank_correlation(h_s, h_t),
        "effective": sum(weights) ** 2 / (N * sum(w * w for w in weights)),
        "on_errors": sum(wrong) / len(wrong) / mean,
    }
    assert vars(found) == pytest.approx(expected, rel=1e-5)


def test_a_student_that_knows_nothing_leaves_the_weight_to_the_teacher():
    teacher, student = random_samples(2), random_samples(3, scale=0.0)
    found = measure_weights(student, teacher, temperature=3.0)
    assert found.of_student == pytest.approx(0, abs=1e-6)
    assert found.variation == pytest.approx(found.of_teacher)
    assert found.order == pytest.approx(1) and found.entropies is None


def test_the_figure_shows_the_students_alone(tmp_path):
    teacher, student = random_samples(2), random_samples(3)
    right = Samples(student.labels, 9.0 * torch.eye(C)[student.labels], student.features)
    rows = [["KD", "EA", "none", "some"], ["teacher"]]
    students = dict.fromkeys(rows[0], student) | {"none": right}
    report = weights_result(teacher, students, rows, temperature=3.0, what="ROIs")
    report.write(str(tmp_path))
    (figure, _) = report.figures["weights"]
    *panels, bar = figure.axes
    titles = [axes.get_title().split("\n") for axes in panels]
    assert [title[0] for title in titles] == rows[0]
    of = measure_weights(student, teacher, temperature=3.0)
    assert f"{of.variation:.0%}" in titles[0][1] and f"{of.of_teacher:.0%}" in titles[0][1]
    assert "60 ROIs" in figure.get_suptitle()
    numbers = json.loads((tmp_path / "weights.json").read_text())
    assert numbers["students"]["KD"] == pytest.approx(vars(of))
    assert numbers["students"]["none"]["on_errors"] is None
    assert {len(row) for row in report.rows} == {len(report.headers)}
    assert bar.get_ylabel() == "ROIs in a cell (log scale)"
    for axes in panels:
        cells = axes.collections[0]
        lightest = cells.cmap(cells.norm(1))[:3]
        assert sum(lightest) / 3 < 0.9, "a single sample is visible on white"
        low, high = axes.bbox.padded(-5).get_points()
        for text in axes.texts:
            ends = text.get_window_extent().get_points()
            assert (ends > low).all() and (ends < high).all(), "the frame cuts no name of a line"
    # A line of equal weight is where the weight is that multiple of its mean.
    lines = figure.axes[0].collections[-1]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        for h_t, h_s in path.vertices[1:-1:5]:
            weight = h_t * (1 + h_s / math.log(C)) / 2
            assert weight == pytest.approx(level * of.mean, rel=0.01)

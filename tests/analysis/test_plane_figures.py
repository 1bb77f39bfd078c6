"""eakd_det.analysis.plane_figures: what stands in the figures."""

import numpy as np
import pytest
import torch

from eakd_det.analysis.landscape import explore
from eakd_det.analysis.plane_figures import LINE, draw_contours, draw_separations, draw_surfaces
from eakd_det.analysis.separation import Separation, highest

NAMES = ["coat", "bag", "shirt"]


@pytest.fixture
def landscapes():
    """Two bowls, the second of which is nowhere below 2."""
    return {
        "low": explore(lambda a, b: 0.5 + 3 * a**2 + 2 * b**2, 11),
        "high": explore(lambda a, b: 2 + 40 * a**2 + b**2, 11),
    }


def separation(num_classes, *, is_teacher=False):
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(60, generator=generator)
    return Separation(
        torch.randn(60, 2, generator=generator) * torch.tensor([1.0, 5.0]),
        torch.arange(60) % num_classes,
        123.456,
        71.25,
        highest(values),
        None if is_teacher else highest(-values),
    )


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_contours_have_one_scale_and_the_line_of_the_level(landscapes):
    figure = draw_contours(landscapes, [["low", "high"]], level=1.6)
    low, high, bar = figure.axes
    area = landscapes["low"].area_below(1.6)
    assert low.get_title() == f"low\n$\\sigma^2$ 1.16, Area@1.6 {area:.3f}"
    assert high.get_title().endswith("Area@1.6 0.000")
    scales = [{c.norm.vmin for c in axes.collections if c.norm.vmin > 0} for axes in (low, high)]
    assert scales[0] == scales[1] or 0.5 in scales[0] & scales[1]
    lines = [c for c in low.collections if list(np.atleast_1d(c.levels)) == [1.6]]
    assert len(lines) == 1
    radii = lines[0].get_paths()[0].vertices
    np.testing.assert_allclose(3 * radii[:, 0] ** 2 + 2 * radii[:, 1] ** 2, 1.1, atol=0.06)
    assert not [c for c in high.collections if list(np.atleast_1d(c.levels)) == [1.6]]
    assert "nats" in bar.get_ylabel()


def test_surfaces_have_one_height(landscapes):
    figure = draw_surfaces(landscapes, [["low"], ["high"]], level=1.6)
    low, high, bar = figure.axes
    assert low.get_zlabel() == high.get_zlabel() == "cross-entropy"
    assert bar.get_ylabel() == "cross-entropy (nats, log scale)"
    assert low.get_zlim() == high.get_zlim()
    assert low.get_zlim()[0] <= np.log10(0.5) and high.get_zlim()[1] >= np.log10(43)
    assert [t.get_text() for t in low.get_zticklabels()] == ["0.5", "1", "2", "5", "10", "20"]


def test_a_loss_of_zero_can_be_drawn():
    bowl = {"x": explore(lambda a, b: a**2, 11)}
    for draw in (draw_contours, draw_surfaces):
        draw(bowl, [["x"]], level=1.6).canvas.draw()


def test_separations_mark_what_counts_and_name_the_classes():
    networks = {"student": separation(3), "teacher": separation(3, is_teacher=True)}
    student, teacher = draw_separations(networks, [["student", "teacher"]], names=NAMES).axes
    assert student.get_title() == "student\nCH 123.5, top-1 71.2 %"
    dots, *marked = student.collections[:4]
    own = networks["student"]
    points, entropy, weight = own.points.numpy(), own.highest_entropy, own.highest_weight
    np.testing.assert_allclose(dots.get_offsets(), points)
    of_marks = (entropy & ~weight, weight & ~entropy, entropy & weight)
    for mark, chosen in zip(marked, of_marks, strict=True):
        np.testing.assert_allclose(mark.get_offsets().reshape(-1, 2), points[chosen])
        assert mark.get_array().tolist() == own.labels[chosen].tolist(), "coloured by class"
    assert len(teacher.collections) == 2
    words = ["5 % of highest entropy", "5 % of highest $w_{EA}$", "both"]
    assert legend(student.figure) == words
    alone = draw_separations({"x": networks["teacher"]}, [["x"]], names=NAMES)
    assert legend(alone) == ["5 % of highest entropy"]
    assert sorted(t.get_text() for t in student.texts) == sorted(NAMES)
    assert "60 test images" in student.figure.get_suptitle()
    width, height = (np.ptp(limits) for limits in (student.get_xlim(), student.get_ylim()))
    assert width == pytest.approx(height) and width > np.ptp(points[:, 1])


def test_many_classes_have_colours_and_no_numbers():
    (axes,) = draw_separations(
        {"x": separation(30)}, [["x"]], names=[str(i) for i in range(30)]
    ).axes
    assert not axes.texts
    assert len({tuple(c) for c in axes.collections[0].to_rgba(np.arange(30))}) == 30


def test_names_stand_near_their_points_and_apart():
    """A class high above two others, which share a place."""
    labels = torch.arange(3).repeat_interleave(10)
    points = torch.stack([torch.arange(10.0).repeat(3), 100.0 * (labels == 0)], dim=1)
    marked = torch.zeros(30, dtype=torch.bool)
    found = Separation(points, labels, 1.0, 50.0, marked, None)
    figure = draw_separations({"x": found}, [["x"]], names=NAMES, what="objects")
    (axes,) = figure.axes
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights["coat"] == 100 and heights["bag"] == pytest.approx(-heights["shirt"])
    assert abs(heights["bag"] - heights["shirt"]) == pytest.approx(LINE * np.ptp(axes.get_ylim()))
    assert "30 objects" in figure.get_suptitle()

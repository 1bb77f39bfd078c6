"""eakd_det.analysis.line_figures: what stands in the figures."""

import numpy as np
import pytest

from eakd_det.analysis.line_figures import MOST_POINTS, draw_areas, draw_dynamics, draw_segments
from eakd_det.analysis.segments import Segment
from eakd_det.distillers.entropy_statistics import COLUMNS


def segments(student):
    """Ten, with an accuracy that falls from 100 by 2, and by `student` for the student."""
    return [
        Segment(
            7,
            0.1 * i,
            (100 - 2.0 * i, 90 - 2.0 * i, 100.0),
            (100.0 - student * i, 0.0, 100.0),
            ((student - 2.0) * i, -9.0, 40.0),
        )
        for i in range(10)
    ]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_segments_show_every_student_and_its_gap():
    of = {"KD": segments(4), "EA-KD": segments(3)}
    figure = draw_segments(of, {"KD": segments(5), "EA-KD": segments(3)}, temperature=3.0)
    left, right, left_gap, right_gap = figure.axes
    for axes in figure.axes:
        assert texts(axes) == ["KD", "EA-KD"] or texts(axes) == ["EA-KD", "KD"]
    for axes, value in [(left, 64), (left_gap, 18), (right, 55), (right_gap, 27)]:
        bars = axes.containers[0]  # KD's line with its intervals
        assert bars.lines[0].get_ydata()[-1] == value
    low, high = left_gap.containers[0].lines[2][0].get_segments()[-1][:, 1]
    assert (low, high) == pytest.approx((-9, 40))
    dashed = [line for line in left.lines if line.get_linestyle() == "--"]
    assert all(line.get_ydata()[-1] == 82 for line in dashed)
    title = figure.get_suptitle()
    assert "KD +18.0 [-9.0, +40.0], EA-KD +9.0 [-9.0, +40.0]" in title
    assert "temperature 3" in figure.get_suptitle()


def logged(number, part_value):
    columns = {name: np.full(number, part_value + i) for i, name in enumerate(COLUMNS)}
    return {"iteration": np.arange(number) * 20.0, **columns}


def test_dynamics_have_a_row_for_each_part_and_few_points():
    runs = {
        "A": {"foreground": logged(1500, 1.0), "background": logged(1500, 2.0)},
        "B": {"foreground": logged(30, 3.0)},
    }
    figure = draw_dynamics(runs)
    assert len(figure.axes) == 6
    assert [texts(axes) for axes in figure.axes] == [["A", "B"]] * 3 + [["A"]] * 3
    lines = figure.axes[0].lines
    assert [len(line.get_xdata()) for line in lines] == [MOST_POINTS, 30]
    assert lines[0].get_xdata().mean() == pytest.approx(1499 * 10)
    assert [axes.lines[0].get_ydata()[0] for axes in figure.axes] == [1, 2, 3, 2, 3, 4]
    band = figure.axes[2].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (4, 5)  # the percentiles
    assert "background" in figure.axes[3].get_title()


def test_equal_lines_are_both_seen():
    """The later one is dashed and narrower, so that the earlier one shows at its sides."""
    same = logged(30, 1.0)
    axes = draw_dynamics({"A": {"foreground": same}, "B": {"foreground": same}}).axes[0]
    first, second = axes.lines
    assert np.array_equal(first.get_ydata(), second.get_ydata())
    assert not first.is_dashed() and second.is_dashed()
    assert first.get_linewidth() > second.get_linewidth()
    assert axes.get_ylim()[1] > first.get_ydata().max(), "the frame cuts no line"


def test_areas_over_a_training_beside_the_teacher_s():
    areas = {"KD": {30: 0.2, 10: 0.0}, "EA-KD": {10: 0.1, 30: 0.4}}
    (axes,) = draw_areas(areas, 0.5, level=1.6).axes
    assert axes.lines[0].get_xydata().tolist() == [[10, 0], [30, 0.2]]
    assert axes.lines[2].get_ydata()[0] == 0.5
    assert sorted(texts(axes)) == ["EA-KD", "KD", "teacher"]
    (axes,) = draw_areas(areas, None, level=1.6).axes
    assert sorted(texts(axes)) == ["EA-KD", "KD"]

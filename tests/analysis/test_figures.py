"""eakd_det.analysis.figures."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from eakd_det.analysis.figures import label_ends, panel_figure, panel_rows, save, space_out, thinned


def test_a_figure_is_saved_as_picture_drawing_and_numbers(tmp_path):
    figure = Figure()
    figure.subplots().plot([1, 2])
    folder = tmp_path / "new" / "folder"
    paths = save(figure, str(folder), "x", {"answer": 42})
    assert [p.rsplit("/", 1)[1] for p in paths] == ["x.png", "x.svg", "x.json"]
    assert np.asarray(Image.open(paths[0]).convert("L")).std() > 0
    assert ET.parse(paths[1]).getroot().tag.endswith("svg")
    assert json.loads((folder / "x.json").read_text()) == {"answer": 42}
    before = [(folder / name).read_bytes() for name in ("x.png", "x.svg", "x.json")]
    save(figure, str(folder), "x", {"answer": 42})
    assert [(folder / name).read_bytes() for name in ("x.png", "x.svg", "x.json")] == before
    assert len(list(folder.iterdir())) == 3  # nothing is left half written


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ({"a": "A"}, [["a"]]),
        ({"a": "A", "b": "B", "teacher": None}, [["a", "b", "teacher"]]),
        ({x: x for x in "abcdef"}, [["a", "b", "c", "d"], ["e", "f"]]),
        (
            {"a1": "A", "b1": "B", "a2": "A", "teacher": None},
            [["a1", "a2", "teacher"], ["b1"]],
        ),
        (
            {f"a{i}": "A" for i in range(5)} | {"teacher": None},
            [["a0", "a1", "a2", "a3"], ["a4", "teacher"]],
        ),
    ],
)
def test_panels_stand_in_rows_of_runs(groups, expected):
    assert panel_rows(groups) == expected


def test_panels_stand_where_their_rows_say():
    figure, panels = panel_figure([["a", "b"], ["c"]], (2, 2))
    figure.canvas.draw()
    a, b, c = (panels[name].get_position() for name in "abc")
    assert a.x0 == pytest.approx(c.x0) and a.y0 > c.y1 and b.x0 > a.x1


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.5, 0.52], [0.4067, 0.5067, 0.6067]),
        ([0.0, 0.5, 0.55, 0.65], [0.0, 0.4667, 0.5667, 0.6667]),
        ([], []),
    ],
)
def test_labels_move_apart_as_little_as_they_can(places, expected):
    assert space_out(places, 0.1) == pytest.approx(expected, abs=1e-4)


def test_random_labels_keep_their_order_and_distance():
    places = np.sort(np.random.default_rng(0).random(30))
    moved = np.array(space_out(places.tolist(), 0.05))
    assert (np.diff(moved) > 0.05 - 1e-9).all()
    assert moved.mean() == pytest.approx(places.mean())


def test_lines_are_named_at_their_ends():
    figure = Figure(figsize=(4, 3))
    axes = figure.subplots()
    axes.set_ylim(0, 10)
    label_ends(axes, [(9.0, "high", "red"), (1.0, "low", "blue"), (1.0, "as low", "green")])
    places = {text.get_text(): text.xy[1] for text in axes.texts}
    assert places["high"] == pytest.approx(0.9)
    assert places["low"] < places["as low"] < 0.2
    assert {t.get_text(): t.get_color() for t in axes.texts}["low"] == "blue"


def test_lines_on_a_logarithmic_axis_are_named_where_they_end():
    axes = Figure().subplots()
    axes.set_yscale("log")
    axes.set_ylim(1, 100)
    label_ends(axes, [(10.0, "middle", "red")])
    assert axes.texts[0].xy[1] == pytest.approx(0.5)


def test_thinned_values_are_means():
    assert thinned(np.arange(6.0), 3).tolist() == [0.5, 2.5, 4.5]
    assert thinned(np.arange(2.0), 3).tolist() == [0, 1]

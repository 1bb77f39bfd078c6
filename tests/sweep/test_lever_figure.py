import json

import numpy as np
import pytest
from matplotlib import colors

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.lever_figure import draw_levers
from eakd_det.sweep.levers import lever_panels
from eakd_det.sweep.rows import collect
from eakd_det.sweep.runs_csv import read_runs
from eakd_det.sweep.tables import summarize, write_rows, write_tables
from eakd_det.sweep.vary import levers_of, short_key

KIND = Classifiers()


@pytest.fixture
def draw(finished):
    """Draws EA-KD at values of a key, and KD and Student; the figure."""

    def call(key, *values, method="EA-KD", tops=(1.0, 2.0)):
        finished("KD/a_b", {1: 1.0, 2: 1.0})
        folder = finished("Student/b", {1: 0.0, 2: 1.0})
        for value in values:
            lever = f"{short_key(key)}={value}"
            name = {"method": f"{method} {lever}", "models": "a_b", "options": [key, value]}
            folder = finished(f"{method}-{lever}/a_b", dict(enumerate(tops, 1)), **name)
        rows = collect(KIND, folder)
        summary, differences = summarize(KIND, rows), compare(KIND, rows)
        return draw_levers(lever_panels(summary, differences, levers_of(rows)), "top-1")

    return call


def ticks(axes):
    labels = [label.get_text() for label in axes.get_xticklabels()]
    return dict(zip(labels, axes.get_xticks().tolist(), strict=True))


def test_means_and_paired_differences(draw):
    top, below = draw("DISTILL.EA.TEMPERATURE", "1", "6", "3").axes
    assert ticks(below) == {"1": 1.0, "3": 3.0, "6": 6.0}
    assert below.get_xlabel() == "DISTILL.EA.TEMPERATURE" and top.get_ylabel() == "top-1 (%)"
    assert top.get_title() == "cifar100, a_b, 2 seeds"
    (line, *_), (gain, *_) = (axes.containers[0] for axes in (top, below))
    assert line.get_ydata().tolist() == [1.5] * 3 and gain.get_ydata().tolist() == [0.5] * 3
    names = {text.get_text(): text.get_color() for text in top.texts}
    assert [*names] == ["Student", "KD", "EA-KD"] and names["KD"] == names["EA-KD"]
    assert [text.get_text() for text in below.texts] == ["EA-KD"]


@pytest.mark.parametrize(
    ("key", "values", "places"),
    [
        ("DISTILL.EA.TEMPERATURE", ["1", "8"], [1.0, 8.0]),
        ("DISTILL.EA.TEMPERATURE", ["0", "100"], [0.0, 100.0]),
        ("SOLVER.BASE_LR", ["0.01", "0.1", "1.0"], [-2.0, -1.0, 0.0]),  # logarithms
        ("DISTILL.EA.MODE", ["teacher", "full"], [0.0, 1.0]),
        ("SOLVER.STEPS", ["4_5", "10_12"], [0.0, 1.0]),
        ("TEACHER.NAME", ["resnet20", "resnet8"], [0.0, 1.0]),
    ],
)
def test_the_axis_of_values(draw, key, values, places):
    axes = draw(key, *values).axes[-1]
    assert [*ticks(axes).values()] == pytest.approx(places)
    is_drawn = axes.containers[0][0].get_linestyle() != "None"
    assert is_drawn == (key != "DISTILL.EA.MODE")  # words without an order are not connected


@pytest.mark.parametrize(("values", "turn"), [(["1", "2", "3"], 0), (["1", "1.05", "3"], 60)])
def test_labels_of_near_values_are_turned(draw, values, turn):
    labels = draw("DISTILL.EA.TEMPERATURE", *values).axes[-1].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {turn}


def test_one_seed_has_no_bars(draw):
    (top,) = draw("DISTILL.EA.TEMPERATURE", "2", method="EA-DKD", tops=[1.0]).axes
    assert top.get_title().endswith(", 1 to 2 seeds")
    (bars,) = top.containers[0].lines[2]
    (segment,) = bars.get_paths()
    assert np.isnan(segment.vertices[:, 1]).all() and len(segment.vertices) == 2


def test_long_names_are_in_a_legend(draw):
    figure = draw("DISTILL.EA.TEMPERATURE", "2", method="EA-KD-of-a-long-name")
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert sorted(names) == ["EA-KD-of-a-long-name", "KD", "Student"]


def test_seven_methods_have_seven_colours(finished):
    methods = ["KD", "DKD", "MLD", "CTKD", "TTM", "ReviewKD", "FCFD"]
    for method in [*methods, *(f"EA-{method}" for method in methods)]:
        lever = "DATASET.TRAIN_SIZE=9"
        name = {"method": f"{method} {lever}", "models": "a_b"}
        options = ["DATASET.TRAIN_SIZE", "9"]
        folder = finished(f"{method}-{lever}/a_b", {1: 1.0}, options=options, **name)
    rows = collect(KIND, folder)
    summary, differences = summarize(KIND, rows), compare(KIND, rows)
    figure = draw_levers(lever_panels(summary, differences, levers_of(rows)), "top-1")
    found = {text.get_text(): colors.to_hex(text.get_color()) for text in figure.axes[0].texts}
    assert len(set(found.values())) == 7 and len(found) == 14
    assert all(found[method] == found[f"EA-{method}"] for method in methods)
    assert len(figure.axes[1].containers) == 7


def test_the_tables_come_with_the_figure(finished, tmp_path):
    folder = finished("KD/resnet32x4_resnet8x4", {1: 1.0})
    write_tables(KIND, folder)
    assert not (tmp_path / "lever.png").exists()
    key, lever = "DISTILL.KD.TEMPERATURE", "KD.TEMPERATURE=2"
    name = {"method": f"KD {lever}", "models": "resnet32x4_resnet8x4", "options": [key, "2"]}
    finished(f"KD-{lever}/resnet32x4_resnet8x4", {1: 2.0}, **name)
    text = write_tables(KIND, folder)
    assert f"| KD {lever} " in text and f"`{key} 2`" in text
    assert {path.suffix for path in tmp_path.glob("lever.*")} == {".png", ".svg", ".json"}
    (panel,) = json.loads((tmp_path / "lever.json").read_text())["panels"]
    assert panel["lines"]["KD"]["2"]["mean"] == 2.0
    kind, rows = read_runs([str(tmp_path / "runs.csv")], [KIND])
    assert write_rows(kind, rows, str(tmp_path / "again"))
    drawn = [path.joinpath("lever.svg").read_bytes() for path in (tmp_path, tmp_path / "again")]
    assert drawn[0] == drawn[1]

import base64
import re

import numpy as np
import pytest

from eakd_det.report.curves import MOST_POINTS, line_chart, merge


def svg(uri):
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def points(text, colour):
    """Points of the line of a colour."""
    path = re.search(rf'<path d="([^"]*)"[^>]*stroke: {colour}; stroke-width: 2.4', text)
    return re.findall(r"[ML] ([\d.]+) ([\d.]+)", path[1])


def test_long_lines_are_thinned_and_short_ones_are_not():
    noise = np.random.default_rng(0).normal(size=9000)
    long = [(i, float(value)) for i, value in enumerate(noise)]
    text = svg(line_chart("loss", {"a": [long]}).light)
    assert 100 < len(points(text, "#0072b2")) <= MOST_POINTS
    assert len(text) < 30_000
    text = svg(line_chart("loss", {"a": [[(19, 1.0), (39, 2.0), (59, 1.5)]]}).light)
    assert len(points(text, "#0072b2")) == 3


def test_both_schemes_show_the_same_in_other_inks():
    chart = line_chart("AP", {"a": [[(0, 1.0), (9, 5.0)]]}, level=7.0)
    light, dark = svg(chart.light), svg(chart.dark)
    assert points(light, "#0072b2") == points(dark, "#56b4e9")
    assert "#1f2328" in light and "#1f2328" not in dark and "#e6edf3" in dark
    assert "black" not in dark and "#000000" not in dark
    assert "a ends at 5" in chart.text and "the teacher has 7" in chart.text


def test_the_same_chart_is_the_same_file():
    lines = {"a": [[(0, 1.0), (9, 5.0)]]}
    assert line_chart("AP", lines) == line_chart("AP", lines)


@pytest.mark.parametrize(("values", "is_log"), [((100.0, 1.0), True), ((2.0, 1.0), False)])
def test_an_axis_is_logarithmic_where_values_need_it(values, is_log):
    chart = line_chart("loss", {"a": [[*enumerate(values)]], "b": [[(0, 50.0 if is_log else 1.5)]]})
    assert ("10^" in svg(chart.light) or "mathdefault" in svg(chart.light)) == is_log


def test_what_is_no_number_is_left_out():
    chart = line_chart("AP", {"a": [[(0, float("nan")), (9, 5.0)]], "b": [[(0, float("inf"))]]})
    assert "a ends at 5" in chart.text and "b ends" not in chart.text


def test_runs_that_differ_in_the_seed_are_one_line_and_its_range():
    of_seeds = [[(0, 1.0), (9, 5.0), (19, 8.0)], [(0, 3.0), (9, 6.0)]]
    assert merge(of_seeds) == [(0, 2.0, 1.0, 3.0), (9, 5.5, 5.0, 6.0)]
    chart = line_chart("AP", {"a": of_seeds})
    assert "a ends at 5.5" in chart.text
    assert len(points(svg(chart.light), "#0072b2")) == 2
    assert "fill-opacity: 0.15" in svg(chart.light)


def test_long_names_stand_below_the_lines():
    """At the ends they would push the lines together."""
    name = "EA-DKD-matched, resnet32x4_resnet8x4"
    chart = svg(line_chart("AP", {name: [[(0, 1.0), (9, 5.0)]]}).light)
    width = [float(x) for x, _ in points(chart, "#0072b2")]
    short = svg(line_chart("AP", {"a": [[(0, 1.0), (9, 5.0)]]}).light)
    assert np.ptp(width) > 0.9 * np.ptp([float(x) for x, _ in points(short, "#0072b2")])
    assert "EA-DKD-matched" in chart


def test_letters_are_legible_on_a_phone():
    """A chart is 330 pixels wide there."""
    chart = svg(line_chart("AP", {"name": [[(0, 1.0), (9, 5.0)]]}).light)
    width = float(re.search(r'<svg[^>]*width="([\d.]+)pt"', chart)[1])
    sizes = {float(size) for size in re.findall(r"font-size: ([\d.]+)px", chart)}
    assert sizes and min(sizes) * 330 / width >= 10

import json
from pathlib import Path

import pytest
from PIL import Image

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.forest import draw_differences
from eakd_det.sweep.rows import collect

KIND = Classifiers()


def height(path):
    with Image.open(path) as image:
        return image.height


def test_a_row_for_each_difference(finished, tmp_path):
    for method, shift in (("KD", 0.0), ("EA-KD", 1.0), ("EA-KD-matched", 0.9)):
        top1 = {seed: 70 + seed + shift + 0.01 * (seed % 2) * shift for seed in range(1, 5)}
        folder = finished(f"{method}/a_b", top1)
    differences = compare(KIND, collect(KIND, folder))
    png, svg, numbers = draw_differences(KIND, differences, str(tmp_path / "one"))
    text = Path(svg).read_text()
    for words in ("cifar100, a_b", "EA-KD minus KD", "EA-KD minus EA-KD-matched"):
        assert f"<!-- {words} -->" in text
    assert "difference in top-1 (points): mean and 95 % interval" in text
    assert "p &lt; 0.05, corrected for 2 comparisons (Holm)" in text
    assert "p &lt;0.001, n 4" in text
    assert len(json.loads(Path(numbers).read_text())["differences"]) == 2
    many = [{**e, "models": f"a_{i}"} for e in differences for i in range(30)]
    assert height(draw_differences(KIND, many, str(tmp_path / "many"))[0]) > 10 * height(png)


@pytest.mark.parametrize(("p", "fill"), [(0.049, "#0072b2"), (0.051, "#ffffff"), (None, "#ffffff")])
def test_markers_are_filled_below_the_level(tmp_path, p, fill):
    names = {"dataset": "x", "models": "a_b", "method": "EA-KD", "minus": "KD", "runs": 2}
    entry = {**names, "mean": 1.0, "interval": 0.5, "p": p, "p_holm": p, "effect": None}
    _, svg, _ = draw_differences(KIND, [entry], str(tmp_path))
    markers = [line for line in Path(svg).read_text().splitlines() if "<use" in line]
    circles = [line for line in markers if "stroke: #0072b2" in line]
    # Of the legend, where there is one, there are a filled and a hollow marker.
    assert sum(f"fill: {fill}" in line for line in circles) == (2 if p else 1)

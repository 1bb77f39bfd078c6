"""eakd_det.analysis.dynamics."""

import json

import pytest

from eakd_det.analysis.dynamics import read_dynamics
from eakd_det.analysis.runs import Run
from eakd_det.distillers.entropy_statistics import COLUMNS
from eakd_det.utils.errors import UserError


def line(iteration, value, *parts):
    row = {"iteration": iteration, "total_loss": 1.0}
    for part in parts:
        row |= {f"distill/{part}/{column}": value + i for i, column in enumerate(COLUMNS)}
    return json.dumps(row) + "\n"


@pytest.fixture
def run(tmp_path):
    """Reads a metrics.json of this text."""

    def read(text):
        (tmp_path / "metrics.json").write_text(text)
        return read_dynamics(Run("x", "x", str(tmp_path)))

    return read


def test_a_classifier_s_entropies_by_iteration(run):
    found = run(line(19, 1.0, "images") + line(39, 2.0, "images"))
    assert list(found) == ["images"]
    images = {name: values.tolist() for name, values in found["images"].items()}
    assert images["iteration"] == [19, 39]
    for i, column in enumerate(COLUMNS):
        assert images[column] == [1.0 + i, 2.0 + i]


def test_a_detector_s_parts_and_a_step_without_foreground(run):
    found = run(line(19, 1.0, "foreground", "background") + line(39, 2.0, "background"))
    assert found["foreground"]["iteration"].tolist() == [19]
    assert found["background"]["teacher_entropy"].tolist() == [1, 2]


def test_a_resumed_run_overwrites_what_it_does_again(run):
    test = json.dumps({"iteration": 39, "top1": 50.0}) + "\n"
    text = line(19, 1.0, "images") + line(39, 9.0, "images") + line(19, 3.0, "images")
    images = run(text + line(39, 2.0, "images") + test)["images"]
    assert images["iteration"].tolist() == [19, 39]
    assert images["teacher_entropy"].tolist() == [3, 2]


def test_mistakes_are_told(run, tmp_path):
    with pytest.raises(UserError, match="no entropies: the run did not distil"):
        run(line(19, 1.0))
    with pytest.raises(UserError, match=r"metrics.json, line 2: "):
        run(line(19, 1.0, "images") + '{"iter')
    with pytest.raises(UserError, match="metrics.json does not exist"):
        read_dynamics(Run("x", "x", str(tmp_path / "other")))

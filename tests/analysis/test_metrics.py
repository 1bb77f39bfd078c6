"""eakd_det.analysis.metrics."""

import json

import pytest

from eakd_det.analysis.metrics import read_metrics
from eakd_det.utils.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Reads a metrics.json of these rows."""

    def read(rows):
        (tmp_path / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_metrics(str(tmp_path))

    return read


def rows(iterations, **values):
    return [{"iteration": i, **{name: x + i for name, x in values.items()}} for i in iterations]


def test_a_resumed_run_counts_its_iterations_once(read):
    logged = rows((19, 39, 59), loss=0.0) + rows((39, 59, 79), loss=100.0)
    assert read(logged)["loss"] == [(19, 19.0), (39, 139.0), (59, 159.0), (79, 179.0)]


def test_a_run_that_started_afresh_leaves_nothing_of_the_former(read):
    logged = rows((19, 39, 59), loss=0.0, old=0.0) + rows((9, 19), loss=5.0)
    assert read(logged) == {"loss": [(9, 14.0), (19, 24.0)]}


def test_an_evaluation_stands_behind_a_later_log(read):
    logged = [*rows((19, 39), loss=0.0), *rows((24, 39), top1=50.0), *rows((59,), loss=0.0)]
    loss, top1 = [(19, 19.0), (39, 39.0), (59, 59.0)], [(24, 74.0), (39, 89.0)]
    assert read(logged) == {"loss": loss, "top1": top1}


def test_mistakes_are_told(read, tmp_path):
    with pytest.raises(UserError, match="line 2: it has no iteration"):
        read([{"iteration": 0, "loss": 1.0}, {"loss": 1.0}])
    with pytest.raises(UserError, match="does not exist: the folder is not that of a run"):
        read_metrics(str(tmp_path / "nowhere"))

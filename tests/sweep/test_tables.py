import csv
import json

import numpy as np
import pytest
from scipy import stats

from classification.runs import Classifiers
from eakd_det.sweep.rows import collect
from eakd_det.sweep.tables import summarize, write_tables
from eakd_det.utils.errors import UserError

from .conftest import EA_KD, KD

KIND = Classifiers()


def test_means_and_deviations(both):
    kd, ea_kd = summarize(KIND, collect(KIND, both))
    for entry, values in ((kd, KD), (ea_kd, EA_KD)):
        values = list(values.values())
        assert entry["runs"] == len(values)
        assert entry["mean"] == pytest.approx(sum(values) / len(values))
        assert entry["std"] == pytest.approx(np.std(values, ddof=1))
        low, high = stats.t.interval(
            0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
        )
        assert entry["interval"] == pytest.approx((high - low) / 2)
        assert entry["teacher_top1"] == 79.5
    assert "published_mean" not in kd  # the paper's supplement has the EA methods alone
    assert ea_kd["published_mean"] == 75.46 and ea_kd["published_std"] == 0.15
    assert ea_kd["difference"] == pytest.approx(74.175 - 75.46)


def test_files(both, tmp_path, finished):
    finished("Student/resnet8x4", {1: 72.0}, teacher=None)
    text = write_tables(KIND, both)
    assert text == (tmp_path / "table.md").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["runs"]) == 8 and len(results["summary"]) == 3
    assert results["differences"][0]["seeds"] == [1, 2, 3]
    with open(tmp_path / "table.csv") as f:
        kd, _, student, paired = csv.DictReader(f)
    assert float(kd["mean"]) == pytest.approx(np.mean(list(KD.values())))
    assert (student["std"], student["interval"], student["teacher_top1"]) == ("", "", "")
    assert (student["published_mean"], student["difference"]) == ("72.5", "-0.5")
    assert (kd["minus"], paired["minus"], paired["runs"]) == ("", "KD", "3")
    assert r"\begin{tabular}" in (tmp_path / "table.tex").read_text()


def test_no_finished_run(tmp_path):
    with pytest.raises(UserError, match="holds no finished run"):
        write_tables(KIND, str(tmp_path))

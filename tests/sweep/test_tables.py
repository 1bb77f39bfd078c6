import csv
import json

import numpy as np
import pytest
from scipy import stats

from classification.runs import Classifiers
from eakd_det.sweep.rows import collect
from eakd_det.sweep.runs_csv import read_runs
from eakd_det.sweep.tables import summarize, write_rows, write_tables
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


def test_figures_that_are_not_numbers(finished, tmp_path, monkeypatch):
    nan = float("nan")
    finished("KD/a_b", {1: 70.0, 2: nan, 3: 72.0, 4: 73.0})
    finished("EA-KD/a_b", {1: 71.0, 2: 73.0, 3: 74.0, 4: nan})
    folder = finished("EA-DKD/a_b", {1: nan, 2: nan})
    text = write_tables(KIND, folder)
    assert "nan" not in text
    (row,) = (line for line in text.splitlines() if "| EA-DKD " in line)
    assert "— ± — |      0 |" in row
    assert "Left out: KD, a_b on cifar100, seed 2, whose figures" in text
    assert "EA-DKD, a_b on cifar100, seed 1, 2, whose" in text
    results = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert [row["top1"] for row in results["runs"][:2]] == [None, None]
    monkeypatch.chdir(tmp_path)
    kind, rows = read_runs(["runs.csv", "runs.csv"], [KIND])  # copies are equal
    assert len(rows) == 10 and write_rows(kind, rows, "again") == text
    assert (tmp_path / "again" / "runs.csv").read_text() == (tmp_path / "runs.csv").read_text()


def test_a_lever_without_figures_is_not_drawn(finished, tmp_path):
    key = "EA.TEMPERATURE"
    for value, top1 in (("2", 70.0), ("3", float("nan"))):
        options, method = [f"DISTILL.{key}", value], f"EA-KD {key}={value}"
        names = {"method": method, "models": "a_b", "options": options}
        folder = finished(f"EA-KD-{key}={value}/a_b", {1: top1}, **names)
    write_tables(KIND, folder)
    panels = json.loads((tmp_path / "lever.json").read_text())["panels"]
    assert [panel["values"] for panel in panels] == [["2"]]


def test_figures_of_other_runs_are_removed(both, tmp_path):
    mine = tmp_path / "lever_mine.png"
    mine.touch()
    for name in ("lever.png", "lever.json", "differences.png"):
        (tmp_path / name).touch()
    write_tables(KIND, both)
    assert not [*tmp_path.glob("lever.*")] and (tmp_path / "differences.png").stat().st_size
    rows = [row for row in collect(KIND, both) if row["method"] == "KD"]
    write_rows(KIND, rows, str(tmp_path))
    assert not [*tmp_path.glob("differences.*")] and mine.exists()

"""The single runs in docs/evidence, which `tools/sweep.py --repeat` trains again."""

from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.grid import plan
from eakd_det.sweep.repeat import grid_of
from eakd_det.sweep.rows import by_config
from eakd_det.sweep.runs_csv import read_runs
from eakd_det.sweep.vary import split_method
from llm.runs import LanguageModels

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docs" / "evidence").glob("*.csv"))
KINDS = [Detectors(), Classifiers(), LanguageModels()]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_each_row_can_be_repeated(file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    kind, rows = read_runs([str(file)], KINDS)
    for (dataset, models, method), group in by_config(rows).items():
        grid = grid_of(group)
        (run, *_) = plan(kind, grid["configs"], grid["seeds"], str(tmp_path), grid["opts"])
        assert run.record["dataset"] == dataset
        name, lever = split_method(method)
        name += "-normalized" if lever == "EA.MODE=normalized" else ""  # of the options alone
        assert (run.record["method"], run.record["models"]) == (name, models)
    compare(kind, rows)

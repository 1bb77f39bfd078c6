import json
import os
from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.repeat import (
    check_dataset,
    folder_of,
    grid_of,
    repetition_table,
    select_rows,
)
from eakd_det.utils.errors import UserError

KIND = Classifiers()
ROOT = Path(__file__).parents[2]
FILE = "configs/Digits/KD.yaml"


def row(method="KD", seed=1, models="resnet20_resnet8", **others):
    names = {"dataset": "digits", "models": models, "method": method, "seed": seed, "file": FILE}
    unknown = dict.fromkeys(("fingerprint", "teacher", "teacher_weights"), "")
    place = f"a.csv line {seed + 1}"
    return {**names, **unknown, "options": [], "top1": 90.0 + seed, "place": place, **others}


ROWS = [
    row(),
    row(seed=2),
    row("EA-KD"),
    row("EA-KD", models="a_b"),
    row("KD", dataset="x", seed=7),
]


@pytest.mark.parametrize(
    ("name", "seeds", "expected"),
    [
        ("digits/KD/resnet20_resnet8", [], [1, 2]),
        ("digits/KD/resnet20_resnet8", [2], [2]),
        ("EA-KD/a_b", [], [1]),
        ("x/KD/resnet20_resnet8", [], [7]),
    ],
)
def test_runs_are_named(name, seeds, expected):
    found = select_rows(ROWS, name, seeds, "a.csv")
    assert [row["seed"] for row in found] == expected
    assert name.endswith(f"{found[0]['method']}/{found[0]['models']}")


@pytest.mark.parametrize(
    ("name", "seeds", "message"),
    [
        ("DKD", [], r"a.csv has no run of 'DKD'. It has:\n  digits/KD/resnet20_resnet8\n"),
        ("EA-KD", [], r"ambiguous in a.csv. Name:\n  digits/EA-KD/res\w+\n  digits/EA-KD/a_b$"),
        ("KD", [], r"ambiguous in a.csv. Name:\n  digits/KD/res\w+\n  x/KD/resnet20_resnet8$"),
        ("EA-KD/a_b", [1, 3, 4], "no run of EA-KD/a_b with seed 3, 4. It has the seeds 1."),
    ],
)
def test_mistakes(name, seeds, message):
    with pytest.raises(UserError, match=message):
        select_rows(ROWS, name, seeds, "a.csv")


@pytest.fixture
def again(tmp_path, monkeypatch):
    """The rows of two seeds, and their runs."""
    monkeypatch.chdir(ROOT)
    rows = [row(teacher_top1=96.0, options=["SOLVER.BASE_LR", "0.1"]), row(seed=2)]
    grid = grid_of(rows)
    assert grid["seeds"] == [1, 2] and grid["opts"] == ["SOLVER.BASE_LR", "0.1"]
    return rows, plan(KIND, grid["configs"], grid["seeds"], str(tmp_path), grid["opts"])


def test_both_figures_stand_in_the_table(again):
    rows, (first, _) = again
    assert first.arguments[-2:] == ["SOLVER.BASE_LR", "0.1"] and first.cfg.DISTILL.METHODS == (
        "KD",
    )
    check_dataset(*again)
    first.folder.mkdir(parents=True)
    (first.folder / "sweep.json").write_text(json.dumps(first.record))
    result = {"top1": 90.996, "teacher_top1": 95.5}
    (first.folder / "result.json").write_text(json.dumps(result))
    lines = repetition_table(KIND, *again).splitlines()
    assert lines[0] == "## digits, KD/resnet20_resnet8: top-1"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:6]]
    assert cells == [["1", "91.00", "91.00", "+0.00"], ["2", "92.00", "—", "—"]]
    assert lines[-1].startswith("The teacher's figure is 95.50, and 96.00 in the file")
    rows[0]["teacher_top1"] = 95.5
    assert "teacher" not in repetition_table(KIND, *again)


def test_other_data_is_refused(again):
    rows, runs = again
    with pytest.raises(UserError, match=r"a.csv line 2 is of a run on mine, .* on digits now"):
        check_dataset([{**rows[0], "dataset": "mine"}], runs)


def test_a_config_that_is_gone():
    with pytest.raises(UserError, match=r"a.csv line 2, column config: there is no file 'a.yaml'"):
        grid_of([row(file="a.yaml")])


def test_the_config_has_a_path_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (config,) = grid_of([row()])["configs"]
    assert not os.path.isabs(config) and Path(config).samefile(ROOT / FILE)


def test_a_changed_config_is_noted(again):
    rows, runs = again
    now = runs[0].record["fingerprint"][:12]
    rows[0]["fingerprint"] = now
    assert "fingerprint" not in repetition_table(KIND, rows, runs)
    rows[0]["fingerprint"] = "0123456789ab"
    (note,) = repetition_table(KIND, rows, runs).splitlines()[-1:]
    assert note.startswith(f"The runs now have another fingerprint, {now}, and 0123456789ab in")


def test_values_of_a_lever_have_folders_of_their_own():
    names = ["EA-KD EA.TEMPERATURE=2", "EA-KD WEIGHTS=../a", "EA-KD"]
    folders = [folder_of([row(name)], "x") for name in names]
    assert folders == ["x/EA.TEMPERATURE=2", "x/WEIGHTS=.._a", "x"]


def test_figures_that_are_not_numbers(again):
    rows, (first, second) = again
    for run, value in ((first, float("nan")), (second, 92.5)):
        run.folder.mkdir(parents=True)
        (run.folder / "sweep.json").write_text(json.dumps(run.record))
        (run.folder / "result.json").write_text(json.dumps({"top1": value}))
    lines = repetition_table(KIND, rows, [first, second]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:6]]
    assert cells == [["1", "91.00", "nan", "—"], ["2", "92.00", "92.50", "+0.50"]]

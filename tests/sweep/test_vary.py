from pathlib import Path

import pytest

from eakd_det.sweep.vary import (
    Lever,
    acts,
    levers_of,
    order,
    same_lever,
    short_key,
    split_method,
    with_levers,
)
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]
TEMPERATURE = "DISTILL.EA.TEMPERATURE"


@pytest.mark.parametrize(
    ("key", "methods", "others"),
    [
        (TEMPERATURE, ["EA-KD", "EA-DKD+LS-matched"], ["KD", "Student", "Teacher-Cascade"]),
        ("DISTILL.KD.TEMPERATURE", ["KD", "EA-KD", "KD+LS-T2"], ["DKD", "Student"]),
        ("DISTILL.REVIEWKD.WEIGHT", ["EA-ReviewKD", "DKD+REVIEWKD"], ["KD"]),
        ("DISTILL.EA.MODE", ["EA-KD"], ["EA-KD-matched", "EA-KD-teacher", "EA-KD-normalized"]),
        ("DISTILL.EA.BOUND", ["EA-KD", "EA-KD-matched", "EA-KD-normalized"], ["EA-KD-teacher"]),
        ("DISTILL.CE_WEIGHT", ["KD", "Student", "Teacher"], []),
        ("DISTILL.LEVELS", ["KD"], ["Student"]),
        ("TEACHER.EPOCHS", ["KD", "EA-KD"], ["Student", "Teacher"]),
        ("MODEL.NAME", ["KD", "Student", "Teacher"], []),
        ("SOLVER.BASE_LR", ["KD", "Student-Cascade"], []),
    ],
)
def test_where_a_key_acts(key, methods, others):
    assert [method for method in methods + others if acts(key, method)] == methods


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([TEMPERATURE, "1", "2.5"], ["EA.TEMPERATURE=1", "EA.TEMPERATURE=2.5"]),
        (["MODEL.NAME", "resnet8", "timm:x/y"], ["MODEL.NAME=resnet8", "MODEL.NAME=y"]),
        (["TEACHER.WEIGHTS", "a.pth", "out/b.pkl"], ["TEACHER.WEIGHTS=a", "TEACHER.WEIGHTS=b"]),
        (
            ["TEACHER.WEIGHTS", "out/a/model.pth", "out/b/model.pth"],
            ["TEACHER.WEIGHTS=a-model", "TEACHER.WEIGHTS=b-model"],
        ),
        (["SOLVER.STEPS", "(3, 5)", "()"], ["SOLVER.STEPS=3_5", "SOLVER.STEPS=empty"]),
    ],
)
def test_names_of_values(words, names):
    lever = Lever.parse(words, [])
    assert [*lever.values] == names
    assert [*lever.values.values()] == words[1:]


def test_a_number_is_one_value_however_it_is_written():
    words = ["1", "1.0", "+1", "50000", "1234567", "1e-2", ".01", "-3.50", "1e-5", "1_0"]
    values = ["1", "50000", "1234567", "0.01", "-3.5", "1e-05", "1_0"]
    lever = Lever.parse([TEMPERATURE, *words], [])
    assert lever.values == {f"EA.TEMPERATURE={value}": value for value in values}


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["SEED.X", "1"], ["A", "1", "SEED.X", "2"], "SEED.X: the key is also among the KEY VALUE"),
        (["A.B", "x", "X"], [], "two values would have one name"),
        (["A.B", "x:1", "x/1", "x?1"], [], "two values would have one name"),
        (["DISTILL.EA.ENABLED", "True"], [], "Name a config of each method with --configs"),
        (["DISTILL.METHODS", "('KD',)"], [], "DISTILL.METHODS: the key changes the method"),
        (["DISTILL.KD.STANDARDIZE", "True"], [], "STANDARDIZE: the key changes the method"),
    ],
)
def test_mistakes(words, options, message):
    with pytest.raises(UserError, match=message):
        Lever.parse(words, options)


def test_methods_are_called_by_their_lever():
    assert short_key(TEMPERATURE) == "EA.TEMPERATURE" and short_key("MODEL.NAME") == "MODEL.NAME"
    assert split_method("EA-KD EA.TEMPERATURE=2") == ("EA-KD", "EA.TEMPERATURE=2")
    for method in ("KD", "EA-KD (mine-A.B=2/run1)", "KD A.B=2 (mine-A.B=2/run1)"):
        assert split_method(method) == (method, "")
    lever = Lever.parse([TEMPERATURE, "2"], [])
    assert [*lever.variants("EA-KD")] == [("EA.TEMPERATURE=2", [TEMPERATURE, "2"])]
    assert [*lever.variants("KD")] == [("", [])] == [*Lever.parse([], []).variants("EA-KD")]


def test_the_order_is_that_of_numbers():
    levers = ["K=resnet20", "K=word", "K=10", "K=9", "K=resnet8", "K=1e-3", "K=-2"]
    ordered = ["K=-2", "K=1e-3", "K=9", "K=10", "K=resnet8", "K=resnet20", "K=word"]
    levers += ["K=10_12", "K=4_5"]  # of (4, 5): no number, as it would be in Python
    ordered[4:4] = ["K=4_5", "K=10_12"]
    assert sorted(levers, key=order) == ordered


def test_runs_of_one_value_are_compared():
    rows = [
        {"method": f"EA-KD EA.TEMPERATURE={t}", "options": ["A.B", "1", TEMPERATURE, t]}
        for t in ("10", "9")
    ]
    rows += [{"method": "KD A.B=7", "options": ["A.B", "7"]}, {"method": "KD", "options": []}]
    levers = levers_of(rows)
    assert levers == {
        "A.B=7": "A.B",
        "EA.TEMPERATURE=9": TEMPERATURE,
        "EA.TEMPERATURE=10": TEMPERATURE,
    }
    assert same_lever("KD", "EA.TEMPERATURE=9", TEMPERATURE) == "KD"
    assert [*with_levers(("EA-KD", "KD"), levers)] == [
        ("EA-KD", "KD"),
        ("EA-KD A.B=7", "KD A.B=7"),
        ("EA-KD EA.TEMPERATURE=9", "KD"),
        ("EA-KD EA.TEMPERATURE=10", "KD"),
    ]
    named = "EA-KD EA.TEMPERATURE=9", "EA-KD EA.TEMPERATURE=10"
    assert [*with_levers(named, levers)] == [named]


@pytest.mark.slow
def test_teachers_of_several_qualities(monkeypatch, call_tool, tmp_path):
    """Real trainings of an epoch on digits, with two teachers of one config."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    command = ["--configs", "configs/Digits/Student.yaml", "configs/Digits/KD.yaml", "--seeds", "1"]
    command += ["--output-dir", "out", "--vary", "TEACHER.EPOCHS", "1", "2", "SOLVER.EPOCHS", "1"]
    command += ["SOLVER.STEPS", "()", "DATASET.TRAIN_SIZE", "128"]
    code, text, errors = call_tool("sweep.py", *command)
    assert code == 0, text + errors
    names = [f"TEACHER.EPOCHS={epochs}" for epochs in (1, 2)]
    for name in names:
        assert Path(f"output/Digits/Teacher-{name}/result.json").exists()
        assert f"KD {name}" in text
    assert not Path("output/Digits/Teacher").exists()
    assert Path("out/Digits/Student/seed1/result.json").exists()
    assert Path("out/lever.png").exists() and Path("out/runs.csv").exists()
    code, again, _ = call_tool("sweep.py", *command)
    assert code == 0 and again.count("finished before") == 3 and "started" not in again

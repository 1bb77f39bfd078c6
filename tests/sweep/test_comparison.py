import pytest
from scipy import stats

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.rows import collect

from .conftest import EA_KD, KD

KIND = Classifiers()


def test_paired_differences(both):
    (entry,) = compare(KIND, collect(KIND, both))
    assert (entry["method"], entry["minus"], entry["runs"]) == ("EA-KD", "KD", 3)
    assert entry["seeds"] == [1, 2, 3]  # seed 4 is of one of them alone
    test = stats.ttest_rel([EA_KD[s] for s in KD], list(KD.values()))
    low, high = test.confidence_interval(0.95)
    assert entry["mean"] == pytest.approx((0.5 + 0.2 + 0.8) / 3)
    assert entry["interval"] == pytest.approx((high - low) / 2)
    assert entry["mean"] - entry["interval"] == pytest.approx(low)
    assert entry["p"] == entry["p_holm"] == pytest.approx(test.pvalue)
    assert entry["effect"] == pytest.approx(0.5 / 0.3)  # of 0.5, 0.2 and 0.8


def test_p_values_are_corrected_for_all_datasets_and_pairs(finished):
    for dataset, student in (("cifar100", "b"), ("digits", "c")):
        finished(f"KD/a_{student}", {1: 1.0, 2: 2.0, 3: 3.0}, dataset=dataset)
        finished(f"EA-KD/a_{student}", {1: 1.5, 2: 2.2, 3: 3.8}, dataset=dataset)
    finished("EA-DKD/a_b", {1: 5.1, 2: 2.1})  # equal differences: no test
    finished("DKD/a_b", {1: 4.0, 2: 1.0})
    rows = collect(KIND, finished("EA-KD-matched/a_b", {1: 1.5}))  # one seed: no test
    plain = compare(KIND, rows)
    corrected = [(e["minus"], e["p_holm"]) for e in plain if e["p"] is not None]
    (once,) = {entry["p"] for entry in plain} - {None}
    assert corrected == [("KD", pytest.approx(2 * once))] * 2
    assert sum(e["p_holm"] is None and e["effect"] is None for e in plain) == 2
    paired = compare(KIND, rows, [("EA-KD", "DKD")])
    assert [e["p_holm"] for e in paired if e["minus"] == "KD"] == [pytest.approx(3 * once)] * 2


def test_pairs_are_of_one_set_and_the_same_models(finished, caplog):
    finished("KD/a_b", {1: 1.0})
    finished("EA-KD/a_c", {1: 1.0})
    finished("EA-KD/d_e", {1: 5.0, 2: 6.0}, dataset="digits")
    finished("KD/d_e", {3: 2.0}, dataset="digits")
    finished("DKD/d_e", {2: 2.5}, dataset="digits")
    rows = collect(KIND, finished("EA-DKD/d_e", {2: 3.0}, dataset="digits"))
    (entry,) = compare(KIND, rows)
    assert (entry["dataset"], entry["method"], entry["mean"]) == ("digits", "EA-DKD", 0.5)
    assert [message.partition(": ")[0] for message in caplog.messages] == [
        "EA-KD of a_c on cifar100 has no counterpart",
        "EA-KD of d_e on digits has no counterpart",
    ]
    caplog.clear()
    extra = compare(KIND, rows, [("EA-KD", "EA-DKD"), ("EA-DKD", "DKD"), ("KD", "DKD")])
    assert [(e["method"], e["minus"]) for e in extra] == [("EA-DKD", "DKD"), ("EA-KD", "EA-DKD")]
    assert extra[1]["mean"] == 3.0 and extra[1]["interval"] is None
    assert caplog.messages[0] == "--pairs KD:DKD: no seed is finished for both with the same models"
    (unpaired,) = caplog.messages[1:]
    assert unpaired.startswith("EA-KD of a_c on cifar100 has no counterpart: no run of KD ")


@pytest.mark.parametrize(
    ("pair", "student", "other"),
    [
        ("wrn_40_2_wrn_40_1", "wrn_40_1", "wrn_16_2"),
        ("R18-R101", "R18", "R1"),
        ("R18-R101-fast", "R18", "R101-fast"),
    ],
)
def test_a_method_is_compared_with_the_student_alone(finished, pair, student, other):
    finished(f"Student/{other}", {1: 7.0, 2: 7.0})
    finished(f"Student/{student}", {1: 1.0, 2: 2.0, 3: 9.0})
    rows = collect(KIND, finished(f"KD/{pair}", {1: 3.0, 2: 5.0}))
    (entry,) = compare(KIND, rows, [("KD", "Student")])
    assert (entry["models"], entry["minus"]) == (pair, "Student")
    assert (entry["mean"], entry["seeds"]) == (2.5, [1, 2])


def test_methods_are_not_compared_across_models(finished):
    finished("DKD/R18-R101", {1: 1.0})
    rows = collect(KIND, finished("EA-DKD/R18-R101-fast", {1: 2.0}))
    assert compare(KIND, rows) == []


def test_controls_are_compared_with_what_they_control(finished):
    for i, name in enumerate(["KD", "EA-KD", "EA-KD-matched", "EA-KD-teacher", "DKD"]):
        folder = finished(f"{name}/a_b", {1: float(i), 2: float(i)})
    found = {(e["method"], e["minus"]): e["mean"] for e in compare(KIND, collect(KIND, folder))}
    assert found == {
        ("EA-KD", "KD"): 1.0,
        ("EA-KD", "EA-KD-matched"): -1.0,
        ("EA-KD", "EA-KD-teacher"): -2.0,
    }


def test_a_normalized_weight_is_compared_with_none_and_with_the_plain_one(finished, caplog):
    for i, name in enumerate(["KD", "EA-KD-normalized"]):
        folder = finished(f"{name}/a_b", {1: float(i), 2: float(i)})
    (entry,) = compare(KIND, collect(KIND, folder))
    assert (entry["method"], entry["minus"], entry["mean"]) == ("EA-KD-normalized", "KD", 1.0)
    folder = finished("EA-KD/a_b", {1: 3.0, 2: 3.0})
    found = {(e["method"], e["minus"]): e["mean"] for e in compare(KIND, collect(KIND, folder))}
    assert found == {
        ("EA-KD", "KD"): 3.0,
        ("EA-KD-normalized", "KD"): 1.0,
        ("EA-KD", "EA-KD-normalized"): 2.0,
    }
    assert caplog.messages == []


def test_the_warning_names_a_method_that_would_be_compared(finished, caplog):
    finished("EA-DKD-normalized/a_b", {1: 1.0})
    rows = collect(KIND, finished("EA-KD-matched/a_b", {1: 1.0}))
    assert compare(KIND, rows) == []
    missing = [message.partition("no run of ")[2].split()[0] for message in caplog.messages]
    assert missing == ["DKD", "EA-KD"]


TEMPERATURE = "DISTILL.EA.TEMPERATURE"


def varied(finished, key, lever, **tops):
    """Write runs of methods with a lever."""
    for method, top1 in tops.items():
        method = method.replace("_", "-")
        options = [key, lever.partition("=")[2]]
        name = {"method": f"{method} {lever}", "models": "a_b"}
        folder = finished(f"{method}-{lever}/a_b", top1, options=options, **name)
    return folder


@pytest.mark.parametrize("lever", ["", " EA.MODE=full"])
def test_modes_as_levers_are_compared_as_those_of_configs(finished, lever):
    finished("KD/a_b", {1: 1.0, 2: 1.0})
    if lever:
        varied(finished, "DISTILL.EA.MODE", "EA.MODE=full", EA_KD={1: 3.0, 2: 3.0})
    else:
        finished("EA-KD/a_b", {1: 3.0, 2: 3.0})
    folder = varied(finished, "DISTILL.EA.MODE", "EA.MODE=matched", EA_KD={1: 2.5, 2: 2.5})
    found = {(e["method"], e["minus"]): e["mean"] for e in compare(KIND, collect(KIND, folder))}
    assert found == {
        (f"EA-KD{lever}", "KD"): 2.0,
        ("EA-KD EA.MODE=matched", "KD"): 1.5,
        (f"EA-KD{lever}", "EA-KD EA.MODE=matched"): 0.5,
    }


def test_a_varied_method_is_compared_with_one_that_is_not(finished, caplog):
    for value in (2, 10):
        tops = {"EA_KD": {1: 3.0, 2: 3.0 + value}, "EA_KD_matched": {1: 2.0, 2: 2.0}}
        varied(finished, TEMPERATURE, f"EA.TEMPERATURE={value}", **tops)
    finished("Student/b", {1: 0.0, 2: 0.0})
    rows = collect(KIND, finished("KD/a_b", {1: 1.0, 2: 1.0}))
    entries = compare(KIND, rows, [("EA-KD", "Student"), ("KD", "Student")])
    assert [(e["method"], e["minus"], e["mean"]) for e in entries] == [
        ("EA-KD EA.TEMPERATURE=2", "KD", 3.0),
        ("EA-KD EA.TEMPERATURE=10", "KD", 7.0),
        ("EA-KD EA.TEMPERATURE=2", "EA-KD-matched EA.TEMPERATURE=2", 2.0),
        ("EA-KD EA.TEMPERATURE=10", "EA-KD-matched EA.TEMPERATURE=10", 6.0),
        ("EA-KD EA.TEMPERATURE=2", "Student", 4.0),
        ("EA-KD EA.TEMPERATURE=10", "Student", 8.0),
        ("KD", "Student", 1.0),
    ]
    assert caplog.messages == []
    named = ("EA-KD EA.TEMPERATURE=10", "EA-KD EA.TEMPERATURE=2")
    assert compare(KIND, rows, [named])[-1]["mean"] == 4.0


def test_runs_of_other_values_are_not_compared(finished, caplog):
    """Also not with a run of all images, while that of the value is not finished."""
    key = "DATASET.TRAIN_SIZE"
    varied(finished, key, f"{key}=100", EA_KD={1: 3.0}, KD={1: 1.0})
    varied(finished, key, f"{key}=500", EA_KD={1: 9.0})
    rows = collect(KIND, finished("KD/a_b", {1: 2.0}))
    (entry,) = compare(KIND, rows)
    assert (entry["method"], entry["mean"]) == (f"EA-KD {key}=100", 2.0)
    (message,) = caplog.messages
    assert f"no run of KD {key}=500 with these models" in message


def test_two_methods_are_compared_once(finished):
    """A pair that is an automatic one with its lever, or its mirror, is no other hypothesis."""
    finished("KD/a_b", {1: 1.0, 2: 2.0, 3: 3.0})
    for value in (2, 3):
        tops = {"EA_KD": {1: 2.0, 2: 3.5, 3: 4.0 + value}}
        folder = varied(finished, TEMPERATURE, f"EA.TEMPERATURE={value}", **tops)
    rows = collect(KIND, folder)
    named = "EA-KD EA.TEMPERATURE=2"
    plain = compare(KIND, rows)
    assert compare(KIND, rows, [(named, "KD"), ("KD", named)]) == plain and len(plain) == 2
    assert max(entry["p_holm"] / entry["p"] for entry in plain) == pytest.approx(2)


NAN = float("nan")


def test_runs_that_are_not_numbers_are_left_out(finished, caplog):
    finished("KD/a_b", {1: 1.0, 2: 2.0, 3: 3.0, 4: NAN})
    finished("EA-KD/a_b", {1: 1.5, 2: 2.2, 3: NAN, 4: 5.0})
    finished("DKD/a_b", {1: 1.0, 2: NAN})
    rows = collect(KIND, finished("EA-DKD/a_b", {1: NAN, 2: 1.0}))
    (entry,) = compare(KIND, rows, [("EA-DKD", "DKD")])
    assert entry["seeds"] == [1, 2] and entry["p"] == entry["p_holm"] < 1


def unlike(caplog, rows, pairs=()):
    caplog.clear()
    compare(KIND, rows, pairs)
    return [message for message in caplog.messages if "counterpart" not in message]


def test_other_options_are_named(finished, caplog):
    finished("KD/a_b", {1: 1.0, 2: 1.0}, options=["SOLVER.EPOCHS", "6", "TEACHER.WEIGHTS", "a"])
    options = ["SOLVER.EPOCHS", "60", "DISTILL.EA.TEMPERATURE", "2", "TEACHER.WEIGHTS", "a"]
    finished("EA-KD/a_b", {1: 2.0, 2: 2.0}, options=options)
    rows = collect(KIND, finished("Student/b", {1: 0.0}, options=["SOLVER.EPOCHS", "6"]))
    (entry,) = compare(KIND, rows)
    expected = "EA-KD minus KD, a_b on cifar100: the runs have different options, SOLVER.EPOCHS "
    assert entry["caveats"] == [f"{expected}60 and 6."] == unlike(caplog, rows)
    assert unlike(caplog, rows, [("KD", "Student")]) == entry["caveats"]


def test_levers_are_not_other_options(finished, caplog):
    """Nor the folder of a teacher that is trained with the lever."""
    key = "TEACHER.EPOCHS"
    for value in "12":
        options = [key, value, "TEACHER.OUTPUT_DIR", f"teacher-{value}"]
        for method in ("KD", "EA-KD"):
            name = {"method": f"{method} {key}={value}", "models": "a_b"}
            name |= {"options": options, "teacher_weights": value}
            folder = finished(f"{method}-{key}={value}/a_b", {1: 1.0}, **name)
    rows = collect(KIND, folder)
    assert unlike(caplog, rows, [(f"KD {key}=1", f"KD {key}=2")]) == []


def test_other_teachers_are_named(finished, caplog):
    finished("KD/a_b", {1: 1.0}, teacher_weights="a")
    finished("Student/b", {1: 0.0}, teacher_weights="its own start")
    rows = collect(KIND, finished("EA-KD/a_b", {1: 2.0}, teacher_weights="b"))
    pairs = [("KD", "Student")]
    (message,) = unlike(caplog, rows, pairs)
    assert message.startswith("EA-KD minus KD") and "from different teachers" in message
    for row in rows:
        row["teacher_weights"] = ""  # as of a CSV file
    assert unlike(caplog, rows, pairs) == []
    rows[1]["teacher_top1"] = 92.0
    assert unlike(caplog, rows, pairs) == [message]

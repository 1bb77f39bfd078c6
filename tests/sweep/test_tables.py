import csv
import json

import numpy as np
import pytest
from scipy import stats

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.rows import collect
from eakd_det.sweep.tables import summarize, write_tables
from eakd_det.utils.errors import UserError

KIND = Classifiers()
KD = {1: 75.1, 2: 74.2, 3: 75.9}
EA_KD = {1: 75.6, 2: 74.4, 3: 76.7, 4: 70.0}


def config_of(name, dataset):
    """The part of a run's config.yaml that published figures are looked up by."""
    method, models = name.split("/")
    base = method.removeprefix("EA-")
    networks = models.split("_", 1) if method != "Student" else ["", models]
    return {
        "DATASET": {"NAME": dataset},
        "MODEL": {"NAME": networks[-1]},
        "TEACHER": {"NAME": networks[0]},
        "DISTILL": {
            "METHODS": [] if method == "Student" else [base],
            "EA": {"ENABLED": base != method, "MODE": "full"},
            base: {},
        },
    }


@pytest.fixture
def finished(tmp_path):
    """Writes the runs of a config as a sweep leaves them; the sweep's folder."""

    def write(name, top1, *, dataset="cifar100", teacher=79.5, options=(), **others):
        for seed, value in top1.items():
            folder = tmp_path / name / f"seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            record = {"dataset": dataset, "seed": seed, "options": list(options)}
            record |= {"fingerprint": "a", "arguments": [], **others}
            (folder / "sweep.json").write_text(json.dumps(record))
            result = {"top1": value, "top5": 95.0, "best_top1": value, "teacher_top1": teacher}
            result |= {"seconds": 60.0, "epochs": 240}
            (folder / "result.json").write_text(json.dumps(result))
            (folder / "config.yaml").write_text(json.dumps(config_of(name, dataset)))
        return str(tmp_path)

    return write


@pytest.fixture
def both(finished):
    finished("EA-KD/resnet32x4_resnet8x4", EA_KD)
    return finished("KD/resnet32x4_resnet8x4", KD)


def test_collect_reads_what_is_finished(both, tmp_path):
    unfinished = tmp_path / "KD" / "resnet32x4_resnet8x4" / "seed9"
    unfinished.mkdir()
    (unfinished / "sweep.json").write_text("{}")
    (tmp_path / "teachers").mkdir()
    rows = collect(KIND, both)
    assert [(row["method"], row["seed"]) for row in rows] == [
        *(("KD", seed) for seed in KD),
        *(("EA-KD", seed) for seed in EA_KD),
    ]
    assert rows[0]["models"] == "resnet32x4_resnet8x4" and rows[0]["top1"] == 75.1
    assert rows[0]["dataset"] == "cifar100" and rows[0]["epochs"] == 240


def test_the_order_is_that_of_reading(finished):
    names = ("EA-MLD", "MLD", "Student", "EA-MLD+LS", "DKD", "MLD+LS", "EA-DKD", "Teacher")
    for name in names:
        folder = finished(f"{name}/a_b", {1: 1.0})
    assert [row["method"] for row in collect(KIND, folder)] == [
        *("Teacher", "Student", "DKD", "EA-DKD", "MLD", "EA-MLD", "MLD+LS", "EA-MLD+LS")
    ]


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


def test_paired_differences(both):
    (entry,) = compare(KIND, collect(KIND, both))
    assert (entry["method"], entry["minus"], entry["runs"]) == ("EA-KD", "KD", 3)
    assert entry["seeds"] == [1, 2, 3]  # seed 4 is of one of them alone
    test = stats.ttest_rel([EA_KD[s] for s in KD], list(KD.values()))
    low, high = test.confidence_interval(0.95)
    assert entry["mean"] == pytest.approx((0.5 + 0.2 + 0.8) / 3)
    assert entry["interval"] == pytest.approx((high - low) / 2)
    assert entry["mean"] - entry["interval"] == pytest.approx(low)


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
    assert caplog.messages[0] == "--pairs KD:DKD: no seed is finished for both"
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


def test_configs_of_one_name_are_told_apart(finished, caplog):
    """Two temperatures, in files whose names say neither method nor difference."""
    for number, method in enumerate(["KD", "EA-KD", "EA-KD"]):
        name = f"mine/run{number}"
        record = {"method": method, "models": "a_b", "fingerprint": name}
        folder = finished(name, {1: float(number)}, **record)
    rows = collect(KIND, folder)
    names = ["KD", "EA-KD (mine/run1)", "EA-KD (mine/run2)"]
    assert sorted(row["method"] for row in rows) == sorted(names)
    assert len(summarize(KIND, rows)) == 3 and compare(KIND, rows) == []
    assert [message.split(" of ")[0] for message in caplog.messages] == names[1:]
    (entry,) = compare(KIND, rows, [(names[1], "KD")])
    assert entry["mean"] == 1.0


def test_controls_are_compared_with_what_they_control(finished):
    for i, name in enumerate(["KD", "EA-KD", "EA-KD-matched", "EA-KD-teacher", "DKD"]):
        folder = finished(f"{name}/a_b", {1: float(i), 2: float(i)})
    found = {(e["method"], e["minus"]): e["mean"] for e in compare(KIND, collect(KIND, folder))}
    assert found == {
        ("EA-KD", "KD"): 1.0,
        ("EA-KD", "EA-KD-matched"): -1.0,
        ("EA-KD", "EA-KD-teacher"): -2.0,
    }


def test_a_config_with_unlike_runs_is_refused(finished):
    finished("KD/a_b", {1: 1.0})
    folder = finished("KD/a_b", {2: 1.0}, fingerprint="b")
    for function in (summarize, compare):
        with pytest.raises(UserError, match=r"KD/a_b .* seeds 1 \(a\) and 2 \(b\)"):
            function(KIND, collect(KIND, folder))


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

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.rows import collect
from eakd_det.sweep.tables import summarize
from eakd_det.utils.errors import UserError

from .conftest import EA_KD, KD

KIND = Classifiers()


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


def test_a_config_with_unlike_runs_is_refused(finished):
    finished("KD/a_b", {1: 1.0})
    folder = finished("KD/a_b", {2: 1.0}, fingerprint="b")
    for function in (summarize, compare):
        with pytest.raises(UserError, match=r"KD/a_b .* seeds 1 \(a\) and 2 \(b\)"):
            function(KIND, collect(KIND, folder))

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.levers import lever_panels
from eakd_det.sweep.own_values import with_own_values
from eakd_det.sweep.tables import summarize
from eakd_det.sweep.vary import levers_of

KIND = Classifiers()
TEMPERATURE = "DISTILL.EA.TEMPERATURE"  # 3 in the configs of Digits
AMP = ["SOLVER.AMP.ENABLED", "True"]


def runs(method, top1, *, lever="", options=(), models="resnet20_resnet8"):
    """Two runs of a config of Digits, as read from a runs.csv."""
    fixed = {"dataset": "digits", "models": models, "file": f"configs/Digits/{method}.yaml"}
    fixed |= {"folder": "", "place": "runs.csv:2", "teacher_top1": 97.0, "top5": 99.0}
    fixed |= dict.fromkeys(("fingerprint", "teacher", "teacher_weights"), "")
    fixed |= {"method": f"{method} {lever}".strip(), "options": list(options)}
    return [{**fixed, "seed": seed, "top1": top1 + seed / 10} for seed in (1, 2)]


def panels(rows):
    kind, levers = KIND.measured(rows), levers_of(rows)
    summary, differences = summarize(kind, rows), compare(kind, rows)
    return lever_panels(*with_own_values(kind, rows, summary, differences, levers))


def means(line):
    return {value: entry["mean"] for value, entry in line.items()}


def varied(key, value, method="EA-KD", top1=94.0, **others):
    lever = f"{'.'.join(key.split('.')[-2:])}={value}"
    return runs(method, top1, lever=lever, options=[*AMP, key, value], **others)


def test_a_run_without_the_lever_is_drawn_at_the_value_of_its_config():
    rows = runs("EA-KD", 95.0, options=AMP) + runs("KD", 93.0, options=AMP)
    rows += [row for value in ("1", "6") for row in varied(TEMPERATURE, value)]
    (panel,) = panels(rows)
    assert panel.values == ["1", "3", "6"] and [*panel.flat] == ["KD"]
    assert means(panel.lines["EA-KD"]) == pytest.approx({"1": 94.15, "3": 95.15, "6": 94.15})
    assert means(panel.differences["EA-KD"]) == pytest.approx({"1": 1.0, "3": 2.0, "6": 1.0})


def test_methods_are_compared_at_the_value_of_their_configs():
    rows = runs("EA-KD", 95.0, options=AMP) + runs("KD", 93.0, options=AMP)
    for method, top1 in (("KD", 94.0), ("EA-KD", 94.5)):
        rows += varied("DISTILL.KD.WEIGHT", "4.5", method, top1)
    (panel,) = panels(rows)
    assert panel.values == ["0.9", "4.5"] and [*panel.lines] == ["KD", "EA-KD"]
    assert means(panel.differences["EA-KD"]) == pytest.approx({"0.9": 2.0, "4.5": 0.5})


def test_models_that_the_key_changes():
    rows = runs("KD", 95.0, options=AMP) + runs("Student", 90.0, options=AMP, models="resnet8")
    for method, models in (("KD", "resnet20_resnet14"), ("Student", "resnet14")):
        rows += varied("MODEL.NAME", "resnet14", method, models=models)
    (panel,) = panels(rows)
    assert panel.values == ["resnet8", "resnet14"]
    assert all([*line] == panel.values[::-1] for line in panel.lines.values())
    assert [*panel.lines] == ["KD", "Student"]


@pytest.mark.parametrize(
    ("options", "file", "named"),
    [
        ([], "", "differ in SOLVER.AMP.ENABLED."),
        ([*AMP, "SOLVER.BASE_LR", "0.2"], "", "differ in SOLVER.BASE_LR."),
        (AMP, "another.yaml", ""),
    ],
)
def test_runs_that_differ_in_more_are_left_out_and_named(options, file, named, caplog):
    base = [{**row, **({"file": file} if file else {})} for row in runs("EA-KD", 95.0)]
    rows = [{**row, "options": list(options)} for row in base] + varied(TEMPERATURE, "1")
    (panel,) = panels(rows)
    assert panel.values == ["1"] and not panel.flat
    left_out = [text for text in caplog.messages if "leaves out" in text]
    assert [named in text for text in left_out] == [True] * bool(named)


def test_a_value_that_was_trained_itself_stays():
    rows = runs("EA-KD", 95.0, options=AMP) + varied(TEMPERATURE, "3")
    (panel,) = panels(rows)
    assert means(panel.lines["EA-KD"]) == pytest.approx({"3": 94.15})


def test_a_difference_is_of_one_value():
    """X has been trained at another value than its EA-X, or at the same one by itself."""
    base, key = runs("EA-KD", 95.0, options=AMP), "DISTILL.KD.WEIGHT"
    base += varied(key, "4.5")
    (panel,) = panels(base + runs("KD", 93.0, options=[*AMP, key, "2"]))
    assert panel.values == ["0.9", "4.5"] and panel.differences == {}
    (panel,) = panels(base + runs("KD", 93.0, options=AMP) + varied(key, "0.90", "KD", 92.0))
    assert panel.differences == {} and means(panel.lines["KD"]) == pytest.approx({"0.90": 92.15})


def test_zeros_are_left_out():
    """In many keys 0 stands for a default, here log C."""
    (panel,) = panels(runs("EA-KD", 95.0, options=AMP) + varied("DISTILL.EA.BOUND", "2"))
    assert panel.values == ["2"]


def test_the_teacher_s_folder_follows_its_key():
    rows = varied("TEACHER.NAME", "resnet8", "KD", models="resnet8_resnet8")
    folder = ["TEACHER.OUTPUT_DIR", "x-TEACHER.NAME=resnet8"]
    rows = [{**row, "options": [*row["options"], *folder]} for row in rows]
    (panel,) = panels(runs("KD", 95.0, options=AMP) + rows)
    assert panel.values == ["empty", "resnet8"]  # that of TEACHER.CONFIG_FILE


def test_paths_of_one_name():
    key = "TEACHER.CONFIG_FILE"  # configs/Digits/Teacher.yaml in the config
    rows = runs("KD", 95.0, options=AMP)
    rows += runs("KD", 94.0, lever=f"{key}=Teacher", options=[*AMP, key, "other/Teacher.yaml"])
    (panel,) = panels(rows)
    assert sorted(panel.values) == ["Digits-Teacher", "Teacher"]


def test_teachers_that_were_trained_again_are_told_apart(caplog):
    rows = [{**row, "teacher_weights": "a"} for row in runs("EA-KD", 95.0, options=AMP)]
    rows += [{**row, "teacher_weights": "b"} for row in varied(TEMPERATURE, "1")]
    assert panels(rows)[0].values == ["1"] and "their teacher's weights" in caplog.text


def test_a_key_that_a_sweep_would_refuse_is_drawn():
    rows = runs("KD", 95.0, options=AMP) + varied("DISTILL.KD.STANDARDIZE", "True", "KD")
    (panel,) = panels(rows)
    assert panel.values == ["False", "True"]


def test_an_empty_value():
    rows = runs("KD", 95.0, options=AMP) + varied("TEACHER.WEIGHTS", "a.pth", "KD")
    (panel,) = panels(rows)
    assert panel.values == ["a.pth", "empty"]  # as a sweep calls it


@pytest.mark.parametrize(
    ("key", "file"), [(TEMPERATURE, "none"), ("DISTILL.EA.NOT_A_KEY", "EA-KD")]
)
def test_without_the_config_or_its_value_none_is_added(key, file):
    rows = runs("EA-KD", 95.0, options=AMP) + varied(key, "1")
    (panel,) = panels([{**row, "file": f"configs/Digits/{file}.yaml"} for row in rows])
    assert panel.values == ["1"]

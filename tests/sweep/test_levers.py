from eakd_det.sweep.levers import lever_panels

TEMPERATURE = "DISTILL.EA.TEMPERATURE"


def entry(method, mean=1.0, *, models="a_b", minus="", dataset="digits"):
    """An entry of a summary, or of differences."""
    found = {"dataset": dataset, "models": models, "method": method, "mean": mean, "runs": 2}
    return {**found, "interval": 0.5, **({"minus": minus} if minus else {})}


def levers(key, *values):
    return {f"{'.'.join(key.split('.')[-2:])}={value}": key for value in values}


def test_a_panel_for_each_dataset_and_pair_of_models():
    method = "EA-KD EA.TEMPERATURE="
    summary = [
        *(entry("Student", models=models) for models in ("b", "c")),
        entry("Teacher", models="a"),
        entry("KD"),
        *(entry(f"{method}{t}", t) for t in (1, 2)),
        entry("EA-KD"),  # the key acts on it: at another value, or none
        entry(f"{method}2", models="a_c"),
        entry(f"{method}1", dataset="fashion"),
    ]
    gain = entry(f"{method}2", minus="KD")
    others = [entry(f"{method}2", minus="EA-KD-matched EA.TEMPERATURE=2"), entry("KD", minus="X")]
    panels = lever_panels(summary, [gain, *others], levers(TEMPERATURE, 1, 2))
    assert [panel.title for panel in panels] == ["digits, a_b", "digits, a_c", "fashion, a_b"]
    first, second, _ = panels
    assert (first.key, first.values, second.values) == (TEMPERATURE, ["1", "2"], ["2"])
    assert {name: found["mean"] for name, found in first.lines["EA-KD"].items()} == {
        "1": 1,
        "2": 2,
    }
    assert [*first.flat] == ["Student", "KD"] and [*second.flat] == ["Student"]
    assert first.differences == {"EA-KD": {"2": gain}} and second.differences == {}


def test_a_student_alone_is_varied_with_the_others():
    lever = "DATASET.TRAIN_SIZE=9"
    summary = [entry(f"Student {lever}", models="b"), entry(f"KD {lever}"), entry("KD")]
    (panel,) = lever_panels(summary, [], levers("DATASET.TRAIN_SIZE", 9))
    assert [*panel.lines] == ["Student", "KD"] and panel.flat == {}


def test_models_that_the_key_changes_share_a_panel():
    summary = [
        entry(f"{method} MODEL.NAME={size}", models=f"{teacher}{size}")
        for method, teacher in (("Student", ""), ("KD", "a_"), ("EA-KD", "a_"))
        for size in ("s8", "s14")
    ]
    differences = [
        entry(f"EA-KD MODEL.NAME={size}", models=f"a_{size}", minus=f"KD MODEL.NAME={size}")
        for size in ("s8", "s14")
    ]
    (panel,) = lever_panels(summary, differences, levers("MODEL.NAME", "s8", "s14"))
    assert panel.title == "digits" and [*panel.lines] == ["Student", "KD", "EA-KD"]
    assert all([*line] == ["s8", "s14"] for line in panel.lines.values())
    assert [*panel.differences["EA-KD"]] == ["s8", "s14"]


def test_a_level_line_is_of_a_student_of_the_panel():
    """Other sweeps into the folder, of other students, have theirs in other panels."""
    summary = [entry(f"KD TEACHER.NAME={t}", models=f"{t}_s8") for t in ("a", "b")]
    summary += [entry("Student", mean, models=f"s{mean}") for mean in (8, 14, 20)]
    (panel,) = lever_panels(summary, [], levers("TEACHER.NAME", "a", "b"))
    assert panel.title == "digits" and [*panel.lines["KD"]] == ["a", "b"]
    assert [found["models"] for found in panel.flat.values()] == ["s8"]


def test_a_gain_is_of_ea_with_any_mode():
    name = "EA-KD-normalized EA.TEMPERATURE=1"
    summary = [entry("KD"), entry(name)]
    (panel,) = lever_panels(summary, [entry(name, minus="KD")], levers(TEMPERATURE, 1))
    assert [*panel.differences] == ["EA-KD-normalized"]


def test_a_gain_is_at_one_value():
    summary = [entry(f"{method} KD.WEIGHT=1", method) for method in ("KD", "EA-KD")]
    others = [entry("EA-KD KD.WEIGHT=1", minus=minus) for minus in ("KD KD.WEIGHT=2", "KD")]
    gain = entry("EA-KD KD.WEIGHT=1", minus="KD KD.WEIGHT=1")
    (panel,) = lever_panels(summary, [gain, *others], levers("DISTILL.KD.WEIGHT", 1, 2))
    assert panel.differences == {"EA-KD": {"1": gain}}


def test_each_key_has_its_panel():
    found = levers(TEMPERATURE, 1) | levers("DISTILL.EA.BOUND", 2)
    summary = [entry("EA-KD EA.TEMPERATURE=1"), entry("EA-KD EA.BOUND=2")]
    assert [panel.key for panel in lever_panels(summary, [], found)] == [*found.values()]
    assert lever_panels(summary, [], {}) == []

import shutil
from pathlib import Path

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.comparison import compare
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.rows import collect, find_config
from eakd_det.sweep.runs_csv import check_output_dir, read_runs, write_runs
from eakd_det.sweep.tables import write_rows, write_tables
from eakd_det.utils.errors import UserError
from llm.runs import LanguageModels

from .conftest import EA_KD, KD

KINDS = (LanguageModels(), Classifiers(), Detectors())
ROOT = Path(__file__).parents[2]
HEADER = "kind,dataset,models,method,seed,config,options,top1,teacher_top1\n"
LINE = "classifiers,digits,a_b,KD,1,configs/x.yaml,,75.1,79.5\n"


@pytest.fixture
def file(tmp_path):
    """Writes a runs.csv; its path."""

    def write(text, name="runs.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def config_file(method):
    return str(ROOT / f"configs/CIFAR100/{method}/resnet32x4_resnet8x4.yaml")


def test_tables_are_those_of_the_folder(finished, tmp_path, monkeypatch):
    options = ["SOLVER.STEPS", "(3, 4)", "TEACHER.WEIGHTS", "it's mine.pth"]
    for method, top1 in {"KD": KD, "EA-KD": EA_KD}.items():
        arguments = ["--config-file", config_file(method)]
        name = f"{method}/resnet32x4_resnet8x4"
        folder = finished(name, top1, options=options, arguments=arguments)
    text = write_tables(KINDS[1], folder)
    monkeypatch.chdir(tmp_path)  # away from the configs
    kind, rows = read_runs(["runs.csv"], KINDS)
    assert kind.title == "classifiers" and rows[0]["options"] == options
    assert rows[0]["file"] == "configs/CIFAR100/KD/resnet32x4_resnet8x4.yaml"
    assert write_rows(kind, rows, "again") == text
    assert "75.46 ± 0.15" in text  # a published figure
    assert "corrected for 1 comparison (Holm, 1979)" in text
    again = tmp_path / "again"
    for name in ("table.md", "table.tex", "runs.csv"):
        assert (again / name).read_text() == (tmp_path / name).read_text()
    assert (again / "differences.png").exists() and (again / "differences.svg").exists()


def test_a_changed_config_has_no_published_figure(file, tmp_path, caplog):
    path = tmp_path / "mine.yaml"
    path.write_text("VERSION: 2\nSOLVR: 1\n")
    line = LINE.replace("configs/x.yaml", str(path))
    varied = line.replace("KD,1", "KD KD.WEIGHT=2,1").replace(",,75.1", ",DISTILL.KD.WEIGHT 2,75.1")
    kind, rows = read_runs([file(HEADER + line + varied)], KINDS)
    assert "| a_b" in write_rows(kind, rows, str(tmp_path / "out"))
    (message,) = caplog.messages  # once, although the figure of the lever needs the config, too
    assert "runs.csv line 2: its config cannot be loaded any more" in message and "SOLVR" in message


def test_files_are_joined(file):
    first = file(HEADER + LINE + LINE.replace("KD,1", "KD,2"))
    second = HEADER + LINE.replace("KD,1", "EA-KD,1").replace("75.1", "75.8") + LINE
    expected = [("KD", 1), ("KD", 2), ("EA-KD", 1)]
    joined = file(Path(first).read_text() + second, "joined.csv")  # as `cat` joins them
    spreadsheet = file("\N{BYTE ORDER MARK}" + (HEADER + LINE).replace("\n", "\r\n"), "excel.csv")
    for files in ([first, file(second, "second.csv")], [joined], [joined, first, spreadsheet]):
        kind, rows = read_runs(files, KINDS)
        assert [(row["method"], row["seed"]) for row in rows] == expected
        assert rows[0]["top1"] == 75.1 and rows[0]["teacher_top1"] == 79.5
        (entry,) = compare(kind, rows)
        assert entry["mean"] == pytest.approx(0.7)


def test_columns_of_detectors_and_language_models(tmp_path):
    common = {"dataset": "x", "models": "a", "method": "KD", "seed": 1, "options": []}
    common |= {"file": "", "folder": "x", "fingerprint": "0123456789abcdef"}
    scores = {"AP": 30.0, "AP50": 50.123456, "AP75": 28.0}
    path = str(tmp_path / "detectors.csv")
    write_runs(KINDS[2], [{**common, **scores, "teacher_AP": 38.7}], path)
    header, line = Path(path).read_text().splitlines()
    assert header.endswith("options,fingerprint,AP,AP50,AP75,teacher_AP")
    assert line == "detectors,x,a,KD,1,,,0123456789ab,30.0000,50.1235,28.0000,38.7000"
    assert read_runs([path], KINDS)[1][0]["AP50"] == 50.1235
    row = {**common, "rougeL": 20.0, "exact": 3.0, "rougeL Dolly": 21.0, "seconds": 1.0}
    path = str(tmp_path / "llm.csv")
    write_runs(KINDS[0].measured([row]), [row], path)
    kind, (row,) = read_runs([path], KINDS)
    assert row["rougeL Dolly"] == 21.0
    assert [*kind.metrics.values()] == ["ROUGE-L", "exact match", "ROUGE-L Dolly"]
    other = {**row, "seed": 2, "rougeL Vicuna": 9.0}
    del other["rougeL Dolly"]
    write_runs(KINDS[0].measured([row, other]), [row, other], path)
    header, *lines = Path(path).read_text().splitlines()
    assert header.endswith("rougeL,exact,rougeL Dolly,rougeL Vicuna,teacher_rougeL")
    assert [line.split(",")[-3:] for line in lines] == [["21.0000", "", ""], ["", "9.0000", ""]]
    assert [*read_runs([path], KINDS)[0].metrics.values()] == ["ROUGE-L", "exact match"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind,dataset", "kind,data", "line 1 lacks the columns dataset: name a runs.csv"),
        (",", ";", "line 1 lacks the columns .* with commas between"),
        (",79.5", "", "line 2 has 8 columns, but its header has 9"),
        ("classifiers", "dogs", "line 2, column kind: 'dogs' is none of language models, class"),
        (",a_b,", ",,", "line 2, column models is empty"),
        ("KD,1", "KD,one", "line 2, column seed: 'one' is not a whole number"),
        ("75.1", "7x", "line 2, column top1: '7x' is not a figure in percent"),
        ("75.1", "inf", "line 2, column top1: 'inf' is not a figure in percent"),
        (",75.1", ",", "line 2, column top1: there is no figure"),
        ("top1,teacher", "top,teacher", "line 2, column top1: there is no figure"),
        (".yaml,,", ".yaml,A.B 'x,", 'line 2, column options: "A.B \'x": No closing quotation'),
        (".yaml,,", ".yaml,A.B 1 2,", "line 2, column options: 'A.B 1 2' is an odd number"),
        (LINE, "", "there is no run below the first line"),
        ("KD", "\udcff", "is not a CSV file in UTF-8"),
    ],
)
def test_mistakes(tmp_path, old, new, message):
    path = tmp_path / "runs.csv"
    path.write_bytes((HEADER + LINE).replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        read_runs([str(path)], KINDS)
    assert str(path) in str(error.value)


def test_runs_that_do_not_go_together(file):
    base = file(HEADER + LINE)
    other = file(HEADER + LINE.replace("75.1", "75.2"), "other.csv")
    with pytest.raises(UserError, match=r"runs.csv line 2 and .*other.csv line 2 are both KD, a_b"):
        read_runs([base, other], KINDS)
    options = LINE.replace("KD,1", "KD,2").replace(".yaml,,", ".yaml,A.B 1,")
    with pytest.raises(UserError, match="runs of KD, a_b with different options, '' and 'A.B 1'"):
        read_runs([base, file(HEADER + options, "options.csv")], KINDS)
    detectors = HEADER.replace("top1", "AP") + LINE.replace("classifiers", "detectors")
    with pytest.raises(UserError, match=r"classifiers \(.* line 2\) and detectors \(.* line 2\)"):
        read_runs([base, file(detectors, "detectors.csv")], KINDS)
    with pytest.raises(UserError, match=r"none.csv cannot be read: No such file or directory."):
        read_runs(["none.csv"], KINDS)
    with pytest.raises(UserError, match=r"docs cannot be read: Is a directory."):
        read_runs([str(ROOT / "docs")], KINDS)


def test_runs_of_different_teachers_are_not_pooled(file):
    base = file(HEADER + LINE + LINE.replace("KD,1", "KD,2"))
    other = HEADER + LINE.replace("KD,1", "KD,3").replace("79.5", "70.25")
    message = r"runs.csv line 2 and .*b.csv line 2 are runs of KD, a_b, whose teachers .* 70.25 in"
    with pytest.raises(UserError, match=message):
        read_runs([base, file(other, "b.csv")], KINDS)
    for unknown in ("", "nan"):
        text = other.replace("70.25", unknown)
        assert len(read_runs([base, file(text, "b.csv")], KINDS)[1]) == 3


FINGERPRINTS = HEADER.replace("options,", "options,fingerprint,")


def with_fingerprint(line, fingerprint):
    return line.replace(",75.1", f",{fingerprint},75.1")


def test_runs_of_different_fingerprints_are_not_pooled(file):
    """They have the same options, but the content of the config has changed between them."""
    second = LINE.replace("KD,1", "KD,2")
    text = FINGERPRINTS + with_fingerprint(LINE, "a" * 12)
    old = file(HEADER + second, "old.csv")  # of an earlier version
    rows = read_runs([file(text), old], KINDS)[1]
    assert [row["fingerprint"] for row in rows] == ["a" * 12, ""]
    text += with_fingerprint(second, "b" * 12)
    with pytest.raises(
        UserError, match=r"KD/a_b .* different configs or options: seeds 1 \(aaaaaa"
    ):
        read_runs([file(text)], KINDS)


def test_a_config_has_other_paths_on_other_machines(file):
    text = with_fingerprint(LINE, "a" * 12).replace("configs/x", "/home/a/KD")
    other = with_fingerprint(LINE, "a" * 12).replace("configs/x", "/home/b/KD")
    other = other.replace("KD,1", "KD,2").replace(".yaml,,", ".yaml,DATASET.ROOT /b,")
    assert [row["method"] for row in read_runs([file(FINGERPRINTS + text + other)], KINDS)[1]] == [
        *("KD", "KD")
    ]
    changed = FINGERPRINTS + text + other.replace("a" * 12, "b" * 12)
    methods = [row["method"] for row in read_runs([file(changed)], KINDS)[1]]
    assert methods == ["KD (/home/a/KD.yaml)", "KD (/home/b/KD.yaml)"]


def test_configs_outside_the_checkout_are_noted_absolute(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "configs/Digits/KD.yaml", "mine.yaml")
    folder = finished("KD/a_b", {1: 75.0}, arguments=["--config-file", "mine.yaml"])
    write_tables(KINDS[1], folder)
    _, (row,) = read_runs(["runs.csv"], KINDS)
    assert row["file"] == str(tmp_path / "mine.yaml")


def test_runs_whose_folders_are_gone_are_counted(finished, tmp_path, caplog):
    folder = finished("KD/a_b", {1: 75.0, 2: 76.0, 3: 77.0})
    write_tables(KINDS[1], folder)
    assert write_tables(KINDS[1], folder) and caplog.messages == []
    for seed in (1, 3):
        shutil.rmtree(tmp_path / f"KD/a_b/seed{seed}")
    write_tables(KINDS[1], folder)
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'runs.csv'}: it had 2 other runs")


def test_input_files_and_sweeps_are_not_replaced(file, finished, tmp_path):
    path = file(HEADER + LINE)
    with pytest.raises(UserError, match=r"runs.csv lies in the output folder"):
        check_output_dir(str(tmp_path / "x" / ".."), ["elsewhere/a.csv", path])
    with pytest.raises(UserError, match="holds the runs of a sweep"):
        check_output_dir(finished("KD/a_b", {1: 75.0}), ["elsewhere/a.csv"])
    check_output_dir(str(tmp_path / "new"), [path])


def test_configs_of_one_name_are_told_apart(file):
    other = LINE.replace("configs/x", "mine/y").replace("75.1", "70.0")
    _, rows = read_runs([file(HEADER + LINE + other)], KINDS)
    assert [row["method"] for row in rows] == ["KD (configs/x.yaml)", "KD (mine/y.yaml)"]


def test_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "configs/Digits/KD.yaml", "mine.yaml")
    assert Path(find_config("configs/Digits/KD.yaml")).samefile(ROOT / "configs/Digits/KD.yaml")
    assert find_config("mine.yaml") == "mine.yaml" and find_config("none.yaml") is None
    assert find_config(str(tmp_path / "mine.yaml")) == "mine.yaml"
    assert find_config("") is None


def test_runs_of_earlier_sweeps_have_no_config(finished):
    (row,) = collect(KINDS[1], finished("KD/a_b", {1: 75.0}))
    assert row["file"] == ""

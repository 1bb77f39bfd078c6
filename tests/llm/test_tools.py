"""The command-line tools on a shortened tiny experiment."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ["TRAINING.MAX_STEPS", "2", "TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE", "4"]
SHORT += ["TEST.MAX_NEW_TOKENS", "2", "TRAINING.USE_CPU", "True", "DATASET.TRAIN_SIZE", "100"]
SHORT += ["TRAINING.LOGGING_STEPS", "1", "TEST.SETS", '("sort=tiny_sort", "add=tiny_add")']
FILES = [f"configs/LLM/tiny/{name}.yaml" for name in ("KD", "EA-KD")]


@pytest.fixture
def shortened(tmp_path, call_tool):
    """Copies of the tiny configs whose teacher and start train two steps."""
    folder = tmp_path / "configs" / "LLM" / "tiny"
    folder.mkdir(parents=True)
    for path in (ROOT / "configs" / "LLM" / "tiny").glob("*.yaml"):
        text = path.read_text()
        text = re.sub(r"MAX_STEPS: \d+", "MAX_STEPS: 2", text)
        text = re.sub(r"TRAIN_SIZE: \d+", "TRAIN_SIZE: 100", text)
        (folder / path.name).write_text(text)
    return call_tool


def test_teacher_student_and_table(shortened, tmp_path, monkeypatch):
    code, out, err = shortened("train_lm.py", "--config-file", FILES[1], *SHORT)
    assert code == 0, out + err
    assert re.search(r"output/LLM/tiny/EA-KD: loss [\d.]+, \d+ seconds", out)
    folder = tmp_path / "output" / "LLM" / "tiny"
    assert (folder / "Teacher" / "model.safetensors").exists()
    assert (folder / "Start" / "model.safetensors").exists()
    code, out, err = shortened("evaluate_lm.py", "--config-file", FILES[1], *SHORT)
    assert code == 0, out + err
    assert re.search(r"\| method +\| sort +\| add .*average", out) and "| EA-KD" in out


@pytest.mark.slow  # ten processes, each of which imports transformers
def test_a_sweep_and_its_report(shortened, tmp_path):
    """Missing models are trained once; two configs over two seeds; tables; a page."""
    command = ["--configs", *FILES, "--seeds", "1", "2", "--jobs", "2", *SHORT]
    code, out, err = shortened("sweep_lm.py", *command)
    assert code == 0, out + err
    folder = tmp_path / "output" / "sweep" / "LLM"
    assert out.count(": training") == 2 and out.count("started") == 4
    assert out.index("Start.yaml: done") < out.index("[1/4] KD/tiny seed 1: started")
    runs = [folder / method / "tiny" / f"seed{n}" for method in ("KD", "EA-KD") for n in (1, 2)]
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    for result in results:
        mean = (result["rougeL sort"] + result["rougeL add"]) / 2
        assert result["rougeL"] == pytest.approx(mean) and result["teacher_rougeL"] >= 0
    table = (folder / "table.md").read_text()
    assert "ROUGE-L sort" in table and "Exact match add" in table
    assert re.search(r"\| Start-Teacher +\| EA-KD minus KD +\| +[+-]\d+\.\d+ ± ", table)
    tables = json.loads((folder / "results.json").read_text())
    (paired,) = tables["differences"]
    differ = [
        ours["exact"] - theirs["exact"]
        for theirs, ours in zip(results[:2], results[2:], strict=True)
    ]
    assert paired["seeds"] == [1, 2] and paired["exact_mean"] == pytest.approx(sum(differ) / 2)
    assert (folder / "table.csv").exists() and "EA-KD minus KD" in (
        folder / "table.tex"
    ).read_text()

    before = [(run / "model.safetensors").stat().st_mtime_ns for run in runs]
    code, out, err = shortened("sweep_lm.py", *command)
    assert code == 0 and out.count("finished before") == 4 and "started" not in out
    command[-1] = '("sort=tiny_sort",)'
    code, out, err = shortened("sweep_lm.py", *command)
    assert code == 0 and out.count("started") == 4, "they are evaluated on other sets"
    assert before == [(run / "model.safetensors").stat().st_mtime_ns for run in runs]
    code, out, err = shortened("sweep_lm.py", *command, "DISTILL.EA.TEMPERATURE", "2")
    assert code == 1 and "EA-KD/tiny/seed1: another config or other options" in err

    code, out, err = shortened("report.py", str(folder), "--output", "page.html")
    assert code == 0, out + err
    page = (tmp_path / "page.html").read_text()
    assert "Language models on sort" in page and "EA-KD minus KD" in page
    assert "Lines of total loss over the iterations: " in page and "EA-KD, seed 2" in page
    code, out, err = shortened("report.py", *map(str, runs), "--output", "runs.html")
    assert code == 0, out + err
    page = (tmp_path / "runs.html").read_text()
    assert "EA-KD minus KD" in page and "Teacher → Start" in page


def test_a_mistake_is_one_line(shortened):
    """In a new interpreter, stderr has this line alone: imports print no warning."""
    arguments = ("train_lm.py", "--config-file", FILES[0], "TEACHER.CONFIG_FILE", "")
    code, out, err = shortened(*arguments, launcher=(sys.executable,))
    assert code == 1 and not out
    assert err.startswith("error: DISTILL.METHODS ('KD',) needs a teacher: name TEACHER.WEIGHTS")
    assert len(err.splitlines()) == 1

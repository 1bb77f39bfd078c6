"""The command-line tools on a shortened tiny experiment."""

import re
import sys
from pathlib import Path

import pytest

from eakd_det.utils.errors import UserError
from llm.sweep import sweep

ROOT = Path(__file__).parents[2]
SHORT = ["TRAINING.MAX_STEPS", "2", "TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE", "4"]
SHORT += ["TEST.MAX_NEW_TOKENS", "2", "TRAINING.USE_CPU", "True", "DATASET.TRAIN_SIZE", "100"]
SHORT += ["TEST.SETS", '("sort=tiny_sort", "add=tiny_add")']
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

    command = ["--configs", *FILES, "--seeds", "1", "2", *SHORT]
    code, out, err = shortened("sweep_lm.py", *command)
    assert code == 0, out + err
    rows = re.findall(r"^\| (Teacher|Start|EA-KD|KD|EA-KD minus KD) +\|", out, flags=re.MULTILINE)
    # ROUGE-L and exact matches, and the differences of each.
    assert rows == ["Teacher", "Start", "KD", "EA-KD", "EA-KD minus KD"] * 2
    assert " ± " in out

    monkeypatch.chdir(tmp_path)  # again, in this process to save its start
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    before = (folder / "EA-KD" / "seed1" / "model.safetensors").stat().st_mtime
    assert list(sweep(FILES, [1, 2], SHORT)) == ["Teacher", "Start", "KD", "EA-KD"]
    assert (folder / "EA-KD" / "seed1" / "model.safetensors").stat().st_mtime == before
    teacher = folder / "Teacher" / "model.safetensors"
    weights = teacher.read_bytes()
    teacher.write_bytes(weights + b" ")
    with pytest.raises(UserError, match=r"seed2: .*Teacher\.yaml.* before it was trained anew"):
        sweep(FILES, [1, 2], SHORT)
    teacher.write_bytes(weights)
    with pytest.raises(UserError, match="EA-KD/seed1: another config or other options"):
        sweep(FILES, [1, 2], [*SHORT, "DISTILL.EA.TEMPERATURE", "2"])


def test_a_mistake_is_one_line(shortened):
    """In a new interpreter, stderr has this line alone: imports print no warning."""
    arguments = ("train_lm.py", "--config-file", FILES[0], "TEACHER.CONFIG_FILE", "")
    code, out, err = shortened(*arguments, launcher=(sys.executable,))
    assert code == 1 and not out
    assert err.startswith("error: DISTILL.METHODS ('KD',) needs a teacher: name TEACHER.WEIGHTS")
    assert len(err.splitlines()) == 1

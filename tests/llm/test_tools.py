"""The tools as a user calls them, on a shortened tiny experiment."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ["TRAINING.MAX_STEPS", "2", "TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE", "4"]
SHORT += ["TEST.MAX_NEW_TOKENS", "2", "TRAINING.USE_CPU", "True"]


@pytest.fixture
def shortened(tmp_path, call_tool):
    """The tiny configs with a teacher of two steps."""
    folder = tmp_path / "configs" / "LLM"
    folder.mkdir(parents=True)
    (folder / "tiny").mkdir()
    for path in (ROOT / "configs" / "LLM" / "tiny").glob("*.yaml"):
        text = path.read_text().replace("MAX_STEPS: 700", "MAX_STEPS: 2")
        (folder / "tiny" / path.name).write_text(text)
    return call_tool


def test_teacher_student_and_table(shortened, tmp_path):
    files = [f"configs/LLM/tiny/{name}.yaml" for name in ("EA-KD", "Student")]
    code, out, err = shortened("train_lm.py", "--config-file", files[0], *SHORT)
    assert code == 0, out + err
    assert re.search(r"output/LLM/tiny/EA-KD: loss [\d.]+, \d+ seconds", out)
    folder = tmp_path / "output" / "LLM" / "tiny"
    assert (folder / "Teacher" / "model.safetensors").exists()
    code, out, err = shortened("evaluate_lm.py", "--config-file", files[0], *SHORT)
    assert code == 0, out + err
    assert re.search(r"\| method +\| sort +\| copy .*average", out) and "| EA-KD" in out

    sweep = ["sweep_lm.py", "--configs", *files, "--seeds", "1", "2", *SHORT]
    code, out, err = shortened(*sweep)
    assert code == 0, out + err
    rows = re.findall(r"^\| (Teacher|EA-KD|Student) ", out, flags=re.MULTILINE)
    assert rows == ["Teacher", "EA-KD", "Student"] * 2  # ROUGE-L and exact matches
    assert " ± " in out
    before = (folder / "EA-KD" / "seed1" / "model.safetensors").stat().st_mtime
    code, again, err = shortened(*sweep)
    assert code == 0 and out.endswith(again) and "| EA-KD" in again
    assert (folder / "EA-KD" / "seed1" / "model.safetensors").stat().st_mtime == before
    code, _, err = shortened(*sweep, "DISTILL.EA.TEMPERATURE", "2")
    assert code == 1 and "was made with another config" in err


def test_mistakes_are_told_in_words(shortened):
    code, _, err = shortened("train_lm.py", "--config-file", "configs/LLM/tiny/KDD.yaml")
    assert code == 1 and err.splitlines()[-1].startswith("error: --config-file: there is no file")
    file = ["--config-file", "configs/LLM/tiny/KD.yaml"]
    code, _, err = shortened("evaluate_lm.py", *file)
    assert code == 1 and "has no model; train it first" in err
    code, _, err = shortened("train_lm.py", *file, "TEACHER.CONFIG_FILE", "")
    assert code == 1 and "needs a teacher: name TEACHER.WEIGHTS" in err

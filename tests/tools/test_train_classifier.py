"""tools/train_classifier.py as a user calls it: real processes."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from classification.models import build_classifier

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(call_tool, tmp_path):
    """Calls the tool to its end with a config's text and arguments; its output."""

    def call(text, *arguments, code=0, **options):
        (tmp_path / "run.yaml").write_text(text)
        config = ("--config-file", str(tmp_path / "run.yaml"))
        result, out, err = call_tool("train_classifier.py", *config, *arguments, **options)
        assert result == code, out + err
        return out if code == 0 else err

    return call


BASE = """
VERSION: 2
OUTPUT_DIR: run
MODEL: {NAME: resnet8}
DATASET: {NAME: digits, TRAIN_SIZE: 64}
SOLVER: {EPOCHS: 2, BATCH_SIZE: 16}
"""
# Models without batch norm, so that images of a step do not depend on each other.
PER_IMAGE = """
VERSION: 2
OUTPUT_DIR: run
MODEL: {NAME: "timm:test_nfnet"}
TEACHER: {NAME: "timm:test_nfnet", WEIGHTS: teacher.pth}
DATASET: {NAME: digits, TRAIN_SIZE: 19}  # the last step has three
SOLVER: {EPOCHS: 1, BATCH_SIZE: 8, WEIGHT_DECAY: 0.0, BASE_LR: 0.0}
DISTILL:
  METHODS: ("KD", "DKD", "CTKD", "TTM")
  EA: {ENABLED: True}
"""
DIST_URL = ("--dist-url", "auto")  # a free port


def momentum(folder):
    """Return the momenta after the steps; at a learning rate of 0 they sum up gradients."""
    saved = torch.load(Path(folder) / "model_final.pth", weights_only=True)
    state = saved["trainer"]["optimizer"]["state"]
    return {index: of_parameter["momentum_buffer"] for index, of_parameter in state.items()}


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_shared_out_steps_equal_the_whole(call, tmp_path):
    """Two processes, two parts of a step, or both, an uneven last step included."""
    torch.manual_seed(0)
    model = build_classifier("timm:test_nfnet", 10)
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    out = call(PER_IMAGE)
    assert "Images per step: 8 = 1 (processes) x 1 (micro-batches) x 8" in out
    expected = momentum(tmp_path / "run")
    assert max(x.abs().max() for x in expected.values()) > 0.01
    for way, arguments, ranks in [
        ("processes", ("--num-gpus", "2", *DIST_URL), 0),
        ("parts", ("SOLVER.ACCUMULATE", "2"), 0),
        ("both", ("SOLVER.ACCUMULATE", "2"), 2),  # as torchrun starts them
    ]:
        call(PER_IMAGE, *arguments, "OUTPUT_DIR", way, ranks=ranks)
        got = momentum(tmp_path / way)
        for index, gradient in expected.items():
            torch.testing.assert_close(got[index], gradient, atol=1e-5, rtol=1e-5)


def test_one_command_trains_teacher_and_student(call_tool, tmp_path):
    """The shipped Digits config, in a folder of its own and shortened."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    arguments = ("--config-file", "configs/Digits/EA-KD.yaml", "SOLVER.STEPS", "(6,)")
    code, out, err = call_tool("train_classifier.py", *arguments)
    assert code == 0, out + err
    student = re.search(r"student: top-1 ([\d.]+), top-5 ([\d.]+)\n", out)
    teacher = re.search(r"teacher: top-1 ([\d.]+)\n", out)
    assert float(student[1]) > 90 and float(teacher[1]) > 90
    assert re.search(r"Epoch 4/8: top-1 .* left: 0:0", out)
    folder = tmp_path / "output" / "Digits"
    result = json.loads((folder / "EA-KD" / "result.json").read_text())
    assert f"{result['top1']:.2f}" == student[1] and f"{result['teacher_top1']:.2f}" == teacher[1]

    before = (folder / "Teacher" / "model_final.pth").stat().st_mtime
    code, out, _ = call_tool("train_classifier.py", *arguments[:2], "--teacher-only")
    assert code == 0 and "Epoch" not in out
    assert (folder / "Teacher" / "model_final.pth").stat().st_mtime == before
    weights = str(folder / "EA-KD" / "model_final.pth")
    code, out, err = call_tool(
        "train_classifier.py", *arguments[:2], "--eval-only", "MODEL.WEIGHTS", weights
    )
    assert code == 0, err
    assert out.splitlines()[-1] == student[0].strip()


def test_resume_and_two_processes(call, tmp_path):
    call(BASE, "--num-gpus", "2", *DIST_URL, "SOLVER.EPOCHS", "1")
    out = call(BASE, "--num-gpus", "2", *DIST_URL, "--resume")
    assert "Starting training from iteration 4" in out and "Epoch 2/2" in out
    out = call(BASE, "--eval-only", "--resume")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"student: top-1 {result['top1']:.2f}, top-5 {result['top5']:.2f}" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("DATASET.NAME", "cifar100"), "error: cifar100 is not in .*To get it: python -c"),
        (("SOLVER.EPOCH", "3"), "error: the command line: Non-existent key: SOLVER.EPOCH"),
        (("--eval-only", "--resume"), "error: run holds no checkpoint"),
    ],
)
def test_mistakes_are_a_sentence(call, arguments, words):
    err = call(BASE, *arguments, code=1)
    assert re.search(words, err)
    assert "Traceback" not in err

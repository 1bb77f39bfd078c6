"""tools/example_trees.py and eakd_det.demo.trees."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eakd_det.config.merge import load_config
from eakd_det.data.datasets.digits import generate_digits
from eakd_det.demo.trees import (
    NUM_PICTURES,
    RUNS,
    STEPS,
    Step,
    format_results,
    plan,
    run_example,
    run_step,
)
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"


def test_steps_are_commands_of_the_tools(tmp_path):
    steps = plan(TOOLS, str(tmp_path), ["SEED", "3"])
    assert all(Path(step.command[0]).is_file() for step in steps.values())
    assert [*steps][:3] == [*RUNS]
    for run in RUNS:
        words = steps[run].command
        assert words[-2:] == ["SEED", "3"] and "--resume" in words
        cfg = load_config(words[words.index("--config-file") + 1], words[4:])
        assert str(tmp_path / run) == cfg.OUTPUT_DIR == steps[run].run
        assert bool(cfg.DISTILL.METHODS) == (run == "distilled")
    assert str(tmp_path / "teacher" / "model_final.pth") == cfg.TEACHER.WEIGHTS
    again = plan(TOOLS, str(tmp_path), [], overwrite=True)
    assert all("--overwrite" in again[run].command for run in RUNS)


def test_a_folder_of_other_options_is_refused_before_anything_is_done(tmp_path):
    write_json(tmp_path / STEPS, {"teacher": {"command": ["train_net.py", "SEED", "2"]}})
    with pytest.raises(UserError, match=r"was made with other options: .* --overwrite"):
        run_example(TOOLS, str(tmp_path), ["SEED", "3"])
    assert os.listdir(tmp_path) == [STEPS]


def test_a_step_that_fails_is_an_error_with_the_end_of_its_output(tmp_path, capfd):
    log = tmp_path / "logs" / "x.txt"
    assert run_step(Step("x", ["-c", "print('fine')"]), log) > 0
    with pytest.raises(
        UserError, match=r"x: exit code 1; .*x.txt ends with\n    fine\n    no tree"
    ):
        run_step(Step("x", ["-c", "import sys; sys.exit('no tree')"]), log)
    assert capfd.readouterr().out == ""


def test_table(tmp_path):
    for run in RUNS:
        write_json(tmp_path / run / "result.json", {"AP": 31.44, "AP50": 62.1, "AP75": 29.06})
        write_json(tmp_path / run / "run.json", {"parameters": 12_345_678})
        (tmp_path / run / "config.yaml").write_text("MODEL: {}\n")
        write_json(tmp_path / run / "metrics.json", {"iteration": 234, "time": 0.5}, indent=None)
    lines = format_results(str(tmp_path)).splitlines()[2:]
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        [title, "31.4", "62.1", "29.1", "12.3 M", "1 min 58 s"] for title, _ in RUNS.values()
    ]


@pytest.fixture
def tiles(tmp_path):
    """Generated scenes of trees in the place of the tiles, so that nothing is fetched."""
    root = tmp_path / "datasets" / "trees"
    generate_digits(str(root), num_scenes={"train": 12, "val": 12})
    for split in ("train", "val"):
        path = root / "annotations" / f"{split}.json"
        data = json.loads(path.read_text())
        for annotation in data["annotations"]:
            annotation["category_id"] = 1
        path.write_text(json.dumps({**data, "categories": [{"id": 1, "name": "Tree"}]}))


@pytest.mark.slow
def test_stopped_and_started_again(tiles, tmp_path):
    """The whole example with few steps: stopped in the student's run, it goes on there."""
    options = ["SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2", "TEST.EVAL_PERIOD", "0"]
    options += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]  # untrained, they are sure of nothing
    command = [sys.executable, str(TOOLS / "example_trees.py"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["DETECTRON2_DATASETS"] = str(tmp_path / "datasets")
    keywords = {"cwd": tmp_path, "env": environment, "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **keywords) as process:
        for line in process.stdout:
            if line.startswith("[2/7]"):
                process.terminate()
    assert process.returncode == 1
    again = subprocess.run(command, capture_output=True, **keywords)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "[1/7] teacher R101: finished before" in again.stdout
    output = tmp_path / "output" / "trees"
    names = ["report.html", "exported/student.pth", "distilled/analysis/weights.json"]
    assert all((output / name).exists() for name in names)
    assert len(os.listdir(output / "distilled" / "pictures")) == NUM_PICTURES
    assert "student R18 alone" in again.stdout.rsplit("[7/7]")[1]

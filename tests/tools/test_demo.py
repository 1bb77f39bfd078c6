import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eakd_det.analysis.metrics import read_metrics
from eakd_det.config.merge import load_config
from eakd_det.data.datasets.digits import generate_digits
from eakd_det.demo.demo import NETWORKS, _check_folder, _prepare_folder, format_results, run_demo
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]


def test_table():
    result = {"AP": 51.44, "AP50": 82.1, "AP75": 59.06, "parameters": 12.3e6, "seconds": 117.4}
    table = format_results(dict.fromkeys(NETWORKS, result))
    assert [line.split()[-6:] for line in table.splitlines()[2:5]] == [
        ["51.4", "82.1", "59.1", "12.3", "M", "117"]
    ] * len(NETWORKS)
    assert "EA-DKD: +0.0 AP with one seed" in table


def test_table_of_several_seeds():
    def result(ap):
        return {"AP": ap, "AP50": 80.0, "AP75": 50.0, "parameters": 12.3e6, "seconds": ap}

    aps = {"teacher": 60.0, "student": 40.0, "ea_dkd": 46.0, "student-2": 44.0, "ea_dkd-2": 47.0}
    *rows, _, _, line = format_results({run: result(ap) for run, ap in aps.items()}).splitlines()
    assert rows[2].split()[2] == "60.0"
    assert "42.0 ± 2.8" in rows[3] and rows[3].endswith(" 42")
    assert "46.5 ± 0.7" in rows[4]
    assert line == "EA-DKD: +4.5 AP, with the same seed +3.0 to +6.0."


@pytest.fixture
def cfg(tmp_path):
    cfg = load_config(str(ROOT / "configs" / "Digits-Detection" / "Student-R18.yaml"))
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    return cfg


def test_a_run_with_another_config_stays_unless_it_may_go(cfg, tmp_path):
    checkpoint = tmp_path / "run" / "model_final.pth"
    _check_folder(cfg)
    _prepare_folder(cfg, overwrite=False)
    checkpoint.touch()
    (tmp_path / "run" / "notes.txt").write_text("of the user's")
    _check_folder(cfg)
    cfg.SOLVER.BASE_LR = 0.5
    with pytest.raises(UserError, match="run was made with another config, or not by the demo"):
        _check_folder(cfg)
    assert checkpoint.exists()
    _prepare_folder(cfg, overwrite=True)
    _check_folder(cfg)
    assert sorted(os.listdir(tmp_path / "run")) == ["config.yaml", "notes.txt"]


def test_a_folder_of_others_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "essay.txt").write_text("of the user's")
    with pytest.raises(UserError, match=r"student was made with .* another --output-dir"):
        run_demo(str(tmp_path), [])
    assert os.listdir(tmp_path) == ["student"]


@pytest.mark.slow
def test_stopped_and_started_again(tmp_path):
    """The whole demo with few steps: killed in the student's run, it goes on there."""
    generate_digits(str(tmp_path / "datasets" / "digits_det"), num_scenes={"train": 16, "val": 8})
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "SOLVER.MAX_ITER", "21"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["DETECTRON2_DATASETS"] = str(tmp_path / "datasets")
    options = {"cwd": tmp_path, "env": environment, "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        for line in process.stdout:
            if line.startswith("[2/3]"):
                process.kill()
    again = subprocess.run(command, capture_output=True, **options)
    assert again.returncode == 0, again.stderr
    assert "[1/3] teacher R101: finished before" in again.stdout
    assert "left:" in again.stdout
    results = json.loads((tmp_path / "output" / "demo" / "results.json").read_text())
    assert results.keys() == {"teacher", "student", "ea_dkd"}
    assert all(result.keys() >= {"AP", "AP50", "AP75"} for result in results.values())
    for run in NETWORKS:  # AP over the training, for the report's curve
        curve = read_metrics(str(tmp_path / "output" / "demo" / run))["bbox/AP"]
        assert [iteration for iteration, _ in curve] == [19, 21]  # logged every 20 iterations
        assert curve[-1][1] == pytest.approx(results[run]["AP"], nan_ok=True)
    assert (tmp_path / "output" / "demo" / "detections.png").stat().st_size > 10_000

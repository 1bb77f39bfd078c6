import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eakd_det.analysis.metrics import read_metrics
from eakd_det.config import load_config
from eakd_det.data.digits import generate_digits
from eakd_det.demo import RUNS, _forget_other_config, format_results

ROOT = Path(__file__).parent.parent


def test_table():
    result = {"AP": 51.44, "AP50": 82.1, "AP75": 59.06, "parameters": 12.3e6, "seconds": 117.4}
    table = format_results(dict.fromkeys(RUNS, result))
    assert [line.split()[-6:] for line in table.splitlines()[2:]] == [
        ["51.4", "82.1", "59.1", "12.3", "M", "117"]
    ] * len(RUNS)


def test_a_run_with_another_config_starts_over(tmp_path):
    cfg = load_config(str(ROOT / "configs" / "Digits-Detection" / "Student-R18.yaml"))
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    _forget_other_config(cfg)
    (tmp_path / "run" / "model_final.pth").touch()
    _forget_other_config(cfg)
    assert (tmp_path / "run" / "model_final.pth").exists()
    cfg.SOLVER.BASE_LR = 0.5
    _forget_other_config(cfg)
    assert not (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.slow
def test_stopped_and_started_again(tmp_path):
    """The whole demo with few steps: killed in the student's run, it goes on there."""
    generate_digits(str(tmp_path / "datasets" / "digits_det"), num_scenes={"train": 16, "val": 8})
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), "SOLVER.MAX_ITER", "21"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["DETECTRON2_DATASETS"] = str(tmp_path / "datasets")
    options = {"cwd": tmp_path, "env": environment, "text": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **options) as process:
        for line in process.stdout:
            if line.startswith("[2/3]"):
                process.kill()
    again = subprocess.run(command, capture_output=True, **options)
    assert again.returncode == 0, again.stderr
    assert "[1/3] teacher R101: done before" in again.stdout
    assert "left:" in again.stdout
    results = json.loads((tmp_path / "output" / "demo" / "results.json").read_text())
    assert results.keys() == {"teacher", "student", "ea_dkd"}
    assert all(result.keys() >= {"AP", "AP50", "AP75"} for result in results.values())
    for run in RUNS:  # AP over the training, for the report's curve
        curve = read_metrics(str(tmp_path / "output" / "demo" / run))["bbox/AP"]
        assert [iteration for iteration, _ in curve] == [13, 21]  # logged every 20 iterations
        assert curve[-1][1] == pytest.approx(results[run]["AP"], nan_ok=True)
    assert (tmp_path / "output" / "demo" / "detections.png").stat().st_size > 10_000

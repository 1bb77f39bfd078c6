import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.checkpoint import SafeCheckpointer
from eakd_det.config import stock_config
from eakd_det.engine import write_student_config

ROOT = Path(__file__).parent.parent
STOCK_PROCESS = """
import sys, torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
cfg = get_cfg()
cfg.merge_from_file(sys.argv[1])
state = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
build_model(cfg).load_state_dict(state, strict=True)
assert not any(name.startswith("eakd_det") for name in sys.modules)
"""


@pytest.fixture
def run_dir(distill_cfg, tmp_path):
    """A run's folder with two checkpoints that also hold optimizer state."""
    distill_cfg.OUTPUT_DIR = str(tmp_path / "run")
    write_student_config(distill_cfg)
    for seed, name in [(1, "model_0000001"), (2, "model_final")]:
        torch.manual_seed(seed)
        model = build_model(stock_config(distill_cfg))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        SafeCheckpointer(model, distill_cfg.OUTPUT_DIR, optimizer=optimizer).save(name)
    return tmp_path / "run"


def _export(*arguments):
    command = [sys.executable, str(ROOT / "tools" / "export_student.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, text=True, capture_output=True)


def _weights(path):
    return torch.load(path, weights_only=True)["model"]


def test_exported_student_is_stock(run_dir, tmp_path):
    result = _export(run_dir, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    exported = _weights(tmp_path / "out" / "student.pth")
    trained = _weights(run_dir / "model_final.pth")
    assert exported.keys() == trained.keys()
    assert all(torch.equal(exported[name], trained[name]) for name in trained)
    command = [sys.executable, "-c", STOCK_PROCESS, str(tmp_path / "out" / "student.yaml")]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})


def test_a_named_checkpoint(run_dir, tmp_path):
    older = run_dir / "model_0000001.pth"
    assert _export(run_dir, tmp_path / "out", "--checkpoint", older).returncode == 0
    name = "roi_heads.box_predictor.cls_score.weight"
    assert torch.equal(_weights(tmp_path / "out" / "student.pth")[name], _weights(older)[name])


def test_mistakes_are_told(run_dir, tmp_path):
    nothing = _export(tmp_path, tmp_path / "out")
    assert nothing.returncode != 0
    assert "student.yaml" in nothing.stderr
    assert "Traceback" not in nothing.stderr
    (run_dir / "last_checkpoint").unlink()
    nothing = _export(run_dir, tmp_path / "out")
    assert "holds no checkpoint" in nothing.stderr
    assert "Traceback" not in nothing.stderr

import os

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.config.defaults import add_distill_config, stock_config
from eakd_det.engine.student_config import write_student_config
from eakd_det.export import export_student
from eakd_det.modeling.meta_arch.distilled import adapter_modules
from eakd_det.utils.errors import UserError

STOCK_PROCESS = """
import sys, torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
cfg = get_cfg()
cfg.merge_from_file(sys.argv[1])
model = build_model(cfg)
checkpointer = DetectionCheckpointer(model)
faults = []
checkpointer._log_incompatible_keys = lambda keys: faults.extend(sum(keys, []))
checkpointer.load(cfg.MODEL.WEIGHTS)
assert not faults, faults
assert not any(name.startswith("eakd_det") for name in sys.modules)
torch.save(model.state_dict(), sys.argv[2])
"""


@pytest.fixture
def run_dir(distill_cfg, tmp_path):
    """A run's folder with two checkpoints that also hold optimizer state."""
    distill_cfg.OUTPUT_DIR = str(tmp_path / "run")
    distill_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    write_student_config(distill_cfg)
    for seed, name in [(1, "model_0000001"), (2, "model_final")]:
        torch.manual_seed(seed)
        model = build_model(distill_cfg)
        others = {"optimizer": torch.optim.SGD(model.parameters(), 0.1), **adapter_modules(model)}
        assert "helpers" in others
        SafeCheckpointer(model, distill_cfg.OUTPUT_DIR, **others).save(name)
    return tmp_path / "run"


def _weights(path):
    return torch.load(path, weights_only=True)["model"]


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_exported_student_is_stock(run_dir, call_code, tmp_path):
    path = export_student(str(run_dir), str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out")) == ["student.pth", "student.yaml"]
    assert torch.load(path, weights_only=True).keys() == {"model", "__author__"}
    assert _equal(_weights(path), _weights(run_dir / "model_final.pth"))
    loaded = tmp_path / "loaded.pth"
    code, _, err = call_code(STOCK_PROCESS, tmp_path / "out" / "student.yaml", loaded)
    assert code == 0, err
    assert _equal(torch.load(loaded), _weights(run_dir / "model_final.pth"))


def test_a_named_checkpoint(run_dir, tmp_path):
    older, newest = run_dir / "model_0000001.pth", run_dir / "model_final.pth"
    path = export_student(str(run_dir), str(tmp_path / "out"), str(older))
    assert _equal(_weights(path), _weights(older))
    assert not _equal(_weights(older), _weights(newest))


def test_the_config_keeps_its_device(run_dir, tmp_path):
    text = (run_dir / "student.yaml").read_text()
    (run_dir / "student.yaml").write_text(text.replace("DEVICE: cpu", "DEVICE: cuda"))
    export_student(str(run_dir), str(tmp_path / "out"))
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "out" / "student.yaml"))
    assert cfg.MODEL.DEVICE == "cuda"
    assert cfg.MODEL.WEIGHTS == str(tmp_path / "out" / "student.pth")


def test_no_checkpoint(run_dir, tmp_path):
    (run_dir / "last_checkpoint").unlink()
    with pytest.raises(UserError, match=f"{run_dir} holds no checkpoint"):
        export_student(str(run_dir), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"--checkpoint: elsewhere\.pth cannot be loaded"):
        export_student(str(run_dir), str(tmp_path / "out"), "elsewhere.pth")
    assert not (tmp_path / "out").exists()


def test_command_line(run_dir, call_tool, tmp_path):
    """A folder that is no run is told in a sentence; a run is exported."""
    code, _, err = call_tool("export_student.py", tmp_path, tmp_path / "out")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: {tmp_path} has no student.yaml")
    assert "Traceback" not in err
    code, _, err = call_tool("export_student.py", run_dir, tmp_path / "out")
    assert code == 0, err
    assert (tmp_path / "out" / "student.pth").exists()


def test_command_line_of_a_graph(run_dir, call_tool, tmp_path):
    """Prints what was compared, size and latency, and no warning of tracing."""
    code, _, err = call_tool("export_student.py", run_dir, tmp_path / "out", "--size", 64, 96)
    assert code == 2 and err.endswith("--images and --size belong to --format\n")
    config = run_dir / "student.yaml"
    config.write_text(config.read_text().replace("MIN_SIZE_TEST: 800", "MIN_SIZE_TEST: 64"))
    arguments = (run_dir, tmp_path / "out", "--format", "torchscript", "--size", 64, 96)
    code, out, err = call_tool("export_student.py", *arguments)
    assert code == 0, err
    assert "Latency at 64 x 96, 1 thread of the CPU" in out and "MB; a call takes one" in out
    assert "Warning" not in err
    assert os.listdir(tmp_path / "out") == ["student.ts"]


def test_a_student_with_a_backbone_of_this_package(stock_cfg, call_tool, tmp_path):
    """The tool registers MobileNetV2 by itself."""
    stock_cfg.MODEL.BACKBONE.NAME = "build_mobilenetv2_fpn_backbone"
    stock_cfg.MODEL.FPN.IN_FEATURES = ["m2", "m3", "m4", "m5"]
    add_distill_config(stock_cfg)
    stock_cfg.OUTPUT_DIR = str(tmp_path / "run")
    write_student_config(stock_cfg)
    SafeCheckpointer(build_model(stock_config(stock_cfg)), stock_cfg.OUTPUT_DIR).save("model_final")
    code, _, err = call_tool("export_student.py", stock_cfg.OUTPUT_DIR, tmp_path / "out")
    assert code == 0, err
    assert (tmp_path / "out" / "student.pth").exists()

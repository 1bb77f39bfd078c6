import json
import runpy
from pathlib import Path

import pytest

from eakd_det.benchmark.parts import PARTS

ROOT = Path(__file__).parents[2]


def test_a_part_alone(call_tool, tmp_path):
    code, out, err = call_tool(
        "benchmark.py", "--only", "losses", "--rounds", "1", "--output", str(tmp_path / "benchmark")
    )
    assert code == 0, err
    results = json.loads((tmp_path / "benchmark" / "results.json").read_text())
    assert set(results) == {"machine", "losses", "measured"}
    losses, measured = results["losses"], results["measured"]["losses"]
    assert set(losses) == {"dkd", "ea_dkd", "mld", "mld_one_by_one"}
    assert {name: figures["seconds"] for name, figures in measured.items()} == losses
    assert "operations" in out and f"Written to {tmp_path}" in out


@pytest.mark.slow
def test_the_tool(cli_cfg, call_tool, tmp_path):
    """Run the detector's part, with the smallest models and images."""
    (tmp_path / "run.yaml").write_text(cli_cfg.dump())
    code, out, err = call_tool(
        "benchmark.py", "--config-file", str(tmp_path / "run.yaml"), "--rounds", "1",
        "--size", "2", "64", "96", "--only", "detection", "--profile",
        "--output", str(tmp_path / "benchmark"),
    )  # fmt: skip
    assert code == 0, err
    results = json.loads((tmp_path / "benchmark" / "results.json").read_text())
    assert set(results) == {"machine", "detection", "measured"}
    detection = results["detection"]
    seconds = [
        "stock_step", "distill_step", "distill_step_torchvision_pool", "distill_step_bf16_teacher",
        "stock_step_and_teacher",
        "teacher_backbone_stock", "teacher_backbone", "teacher_backbone_bf16",
    ]  # fmt: skip
    assert all(0 < detection[key] < 60 for key in seconds)
    assert detection["peak_distill_mib"] > 100 and detection["peak_stock_mib"] > 100
    assert 0 < detection["teacher_weights_mib"] < 10
    assert 0 < detection["gemm_share"] < 1
    differences = detection["difference"]
    assert all(x < (1e-5 if "losses" in key else 1e-3) for key, x in differences.items())
    assert set(detection["host_calls"]) == {"stock_step", "distill_step"}
    assert "one training step" in out and "peak" in out and "ms of the host" in out
    assert "goal" not in out  # they are a GPU's
    assert f"Written to {tmp_path}" in out


def test_the_command_line_names_all_parts():
    tool = runpy.run_path(str(ROOT / "tools" / "benchmark.py"))
    assert [*tool["DETECTION"], *tool["OPTIONAL"]] == [*PARTS]

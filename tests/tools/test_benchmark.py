import json

import pytest

from eakd_det.benchmark import losses, timing


def test_variants_are_called_in_turn():
    calls = []
    variants = {name: lambda name=name: calls.append(name) for name in "abc"}
    medians = timing.interleave(variants, 2, warmup=1)
    assert "".join(calls) == "abc" * 3
    assert list(medians) == ["a", "b", "c"] and all(x >= 0 for x in medians.values())


def test_every_timed_loss_runs():
    timed = losses.losses_to_time()
    assert set(timed) == {"dkd", "ea_dkd", "mld", "mld_one_by_one"}
    for step in timed.values():
        step()


@pytest.mark.slow
def test_the_tool(cli_cfg, call_tool, tmp_path):
    """Run every part but classification, which is slow, with the smallest models and images."""
    (tmp_path / "run.yaml").write_text(cli_cfg.dump())
    code, out, err = call_tool(
        "benchmark.py", "--config-file", str(tmp_path / "run.yaml"), "--rounds", "1",
        "--size", "2", "64", "96", "--only", "detection", "losses",
        "--output", str(tmp_path / "benchmark"),
    )  # fmt: skip
    assert code == 0, err
    results = json.loads((tmp_path / "benchmark" / "results.json").read_text())
    assert set(results) == {"machine", "detection", "losses"}
    detection = results["detection"]
    seconds = [
        "stock_step", "distill_step", "distill_step_torchvision_pool", "distill_step_bf16_teacher",
        "teacher_backbone_stock", "teacher_backbone", "teacher_backbone_bf16",
    ]  # fmt: skip
    assert all(0 < detection[key] < 60 for key in seconds)
    assert detection["peak_distill_mib"] > 100 and detection["peak_stock_mib"] > 100
    assert 0 < detection["teacher_weights_mib"] < 10
    assert 0 < detection["gemm_share"] < 1
    differences = detection["difference"]
    assert all(x < (1e-5 if "losses" in key else 1e-3) for key, x in differences.items())
    assert set(results["losses"]) == {"dkd", "ea_dkd", "mld", "mld_one_by_one"}
    assert "one training step" in out and f"Written to {tmp_path}" in out

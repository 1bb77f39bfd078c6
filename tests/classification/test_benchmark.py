import pytest
import torch

from classification.benchmark import VARIANTS, build_steps
from eakd_det.modeling.teacher import winograd


def test_variants_agree_and_use_their_options(monkeypatch):
    monkeypatch.setattr(winograd, "IS_FASTER_HERE", True)
    steps = build_steps(batch_size=2)
    assert list(steps) == list(VARIANTS) and {"plain", "levers", "bf16_teacher"} <= set(VARIANTS)
    weights = {}
    for name, step in steps.items():
        model, _, batch = step.args
        before = model.student.fc.weight.detach().clone()
        assert step() is None
        weights[name] = model.student.fc.weight.detach()
        assert not weights[name].equal(before)
        teacher, levers = model.teacher.model, VARIANTS[name]
        is_last = model.student.conv1.weight.is_contiguous(memory_format=torch.channels_last)
        assert is_last == ("MODEL.CHANNELS_LAST" in levers)
        half = levers.get("TEACHER.PRECISION") == "bfloat16"
        is_tiled = any(isinstance(m, winograd.WinogradConv2d) for m in teacher.modules())
        assert is_tiled == ("TEACHER.FAST" in levers and not half)
        assert teacher.fc.weight.dtype == (torch.bfloat16 if half else torch.float32)
        assert batch["views"][0].shape == (2, 3, 32, 32)
    for name in ("fast_teacher", "channels_last", "levers"):
        torch.testing.assert_close(weights[name], weights["plain"], rtol=1e-3, atol=1e-4)
    assert not weights["bf16_teacher"].equal(weights["levers"])


def test_one_variant_leaves_the_random_state_unchanged():
    before = torch.get_rng_state()
    steps = build_steps(["plain"], batch_size=2)
    assert list(steps) == ["plain"] and before.equal(torch.get_rng_state())
    with pytest.raises(KeyError):
        build_steps(["plane"])

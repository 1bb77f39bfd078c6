import torch
from torch import nn

from classification.benchmark import VARIANTS, build_steps


def test_variants_agree_and_use_their_options():
    before = torch.get_rng_state()
    steps = build_steps(batch_size=2)
    assert before.equal(torch.get_rng_state())
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
        is_fused = not any(isinstance(m, nn.BatchNorm2d) for m in teacher.modules())
        assert is_fused == ("TEACHER.FAST" in levers)
        assert teacher.fc.weight.dtype == (torch.bfloat16 if half else torch.float32)
        assert batch["views"][0].shape == (2, 3, 32, 32)
    for name in ("fast_teacher", "channels_last", "levers"):
        torch.testing.assert_close(weights[name], weights["plain"], rtol=1e-3, atol=1e-4)
    assert not weights["bf16_teacher"].equal(weights["levers"])

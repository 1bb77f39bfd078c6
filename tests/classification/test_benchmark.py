import torch
from torch import nn

from classification.benchmark import VARIANTS, step_builders


def test_variants_agree_and_use_their_options(tmp_path):
    builders = step_builders(str(tmp_path), "cpu", 2)
    assert list(builders) == list(VARIANTS) and {"plain", "levers", "bf16_teacher"} <= set(VARIANTS)
    weights = {}
    for name, build in builders.items():
        step = build()
        model = step.trainer.distilled
        before = model.student.fc.weight.detach().clone()
        step()
        weights[name] = model.student.fc.weight.detach()
        assert not weights[name].equal(before)
        assert step.losses().keys() == {"loss_cls", "loss_kd"}
        teacher, levers = model.teacher.model, VARIANTS[name]
        is_last = model.student.conv1.weight.is_contiguous(memory_format=torch.channels_last)
        assert is_last == ("MODEL.CHANNELS_LAST" in levers)
        half = levers.get("TEACHER.PRECISION") == "bfloat16"
        is_fused = not any(isinstance(m, nn.BatchNorm2d) for m in teacher.modules())
        assert is_fused == ("TEACHER.FAST" in levers)
        assert teacher.fc.weight.dtype == (torch.bfloat16 if half else torch.float32)
    for name in ("fast_teacher", "channels_last", "levers"):
        torch.testing.assert_close(weights[name], weights["plain"], rtol=1e-3, atol=1e-4)
    assert not weights["bf16_teacher"].equal(weights["levers"])

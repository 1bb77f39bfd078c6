import pytest
import torch
from torch import nn

from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import PRECISIONS, Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "around", "expected"),
    [
        ("", None, torch.float32),
        ("", torch.bfloat16, torch.bfloat16),
        ("float32", torch.bfloat16, torch.float32),
        ("amp", None, torch.float16),
        ("bfloat16", torch.float16, torch.float32),  # its weights are cast, not autocast
    ],
)
def test_precisions(name, around, expected):
    linear, x = nn.Linear(2, 2), torch.ones(1, 2)
    student = torch.autocast("cpu", around or torch.bfloat16, enabled=around is not None)
    with student, Precision(name, "float16").context(CPU):
        assert linear(x).dtype == expected


def test_unknown_precision():
    with pytest.raises(UserError, match="TEACHER.PRECISION: 'int8' is unknown; choose from float"):
        Precision("int8")
    with pytest.raises(UserError, match="SOLVER.AMP.DTYPE: 'half' is unknown; choose from float16"):
        Precision("", "half")


@pytest.mark.parametrize("name", PRECISIONS)
def test_slow_precisions_are_told(monkeypatch, caplog, name):
    for capability, is_slow in [("AVX2", name in ("float16", "bfloat16", "amp")), ("AMX", False)]:
        monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda c=capability: c)
        caplog.clear()
        Precision(name).warn_if_slow(CPU)
        assert ("has no instructions for it" in caplog.text) == is_slow
    Precision(name).warn_if_slow(torch.device("cuda"))

import copy
import logging

import pytest
import torch
from torch import nn

from eakd_det.modeling.teacher import FrozenTeacher, fuse_batch_norms
from eakd_det.utils.precision import Precision

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


class SmallTeacher(FrozenTeacher):
    """FrozenTeacher of a convolutional network with a batch norm."""

    def __init__(self, **options):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(8)
        norm.running_mean.uniform_(-0.2, 0.2), norm.running_var.uniform_(0.5, 1.5)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(7200, 5))
        super().__init__(model, **options)

    @torch.no_grad()
    def logits(self):
        with self.context():
            return self.model(self._input(IMAGES))

    def _fuse_norms(self):
        fuse_batch_norms(self.model)


def has_norms(teacher):
    return any(isinstance(m, nn.BatchNorm2d) for m in teacher.model.modules())


def prepare(teacher, caplog):
    """Prepare a teacher and return what the log says of its logits."""
    with caplog.at_level(logging.INFO):
        teacher.prepare(lambda: [teacher.logits()])
    name = "eakd_det.modeling.teacher.output_difference"
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == name]


def test_it_is_frozen_and_no_module():
    teacher = SmallTeacher()
    assert not isinstance(teacher, nn.Module) and not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())


def test_nothing_is_prepared_without_an_option(caplog):
    teacher = SmallTeacher()
    assert teacher.is_prepared and not prepare(teacher, caplog) and has_norms(teacher)


def test_preparation_is_in_place_and_logged_once(caplog):
    teacher = SmallTeacher(fast=True)
    model, weight = teacher.model, teacher.model[0].weight
    assert not teacher.is_prepared and weight.is_contiguous()
    [(level, line)] = prepare(teacher, caplog)
    assert level == "INFO" and line.startswith("The prepared teacher's logits differ by at most")
    assert teacher.is_prepared and teacher.model is model and not has_norms(teacher)
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert len(prepare(teacher, caplog)) == 1


def test_without_outputs_nothing_is_compared(caplog):
    teacher = SmallTeacher(fast=True)
    with caplog.at_level(logging.INFO):
        teacher.prepare()
    assert teacher.is_prepared and not has_norms(teacher) and not caplog.records


def test_a_difference_is_a_warning(caplog):
    class Spoilt(SmallTeacher):
        def _fuse_norms(self):
            self.model[4].bias.data += 0.01

    [(level, line)] = prepare(Spoilt(fast=True), caplog)
    assert level == "WARNING" and "0.01" in line


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "amp"])
def test_precisions(name, fast):
    plain = SmallTeacher().logits()
    teacher = SmallTeacher(fast=fast, precision=Precision(name, "bfloat16"))
    teacher.prepare()
    dtype = {"float32": torch.float32, "float16": torch.float16}.get(name, torch.bfloat16)
    logits = teacher.logits()
    assert logits.dtype == dtype and has_norms(teacher) != fast
    assert {p.dtype for p in teacher.model.parameters()} == {
        torch.float32 if name == "amp" else dtype
    }
    tolerance = {"float32": 1e-5, "float16": 1e-2}.get(name, 8e-2)
    torch.testing.assert_close(logits.float(), plain, rtol=tolerance, atol=tolerance)
    if name != "float32":
        assert not logits.float().equal(plain)


def test_a_prepared_precision_does_not_follow_the_students_autocast():
    full, own = (SmallTeacher(fast=True, precision=Precision(x)) for x in ("float32", ""))
    unprepared = copy.deepcopy(full)
    full.prepare(), own.prepare()
    outside = full.logits()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert full.logits().equal(outside)
        assert own.logits().dtype == unprepared.logits().dtype == torch.bfloat16


def test_a_slow_precision_is_warned_about(caplog, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    SmallTeacher(fast=True).prepare()
    assert not caplog.records
    SmallTeacher(precision=Precision("bfloat16")).prepare()
    assert "TEACHER.PRECISION bfloat16: this CPU (AVX2)" in caplog.text

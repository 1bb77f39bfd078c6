import logging

import pytest
import torch
from detectron2.utils.events import EventStorage

from eakd_det.losses import entropy, entropy_weight
from eakd_det.statistics import COLUMNS, DistillMetricPrinter, roi_statistics


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(40, 6, generator=generator), 3 * torch.randn(40, 6, generator=generator)


def test_parts_are_told_apart(logits):
    student, teacher = logits
    labels = torch.arange(40) % 6
    result = roi_statistics(student, teacher, labels, temperature=2.0, bound=None)
    for part, chosen in [("foreground", labels < 5), ("background", labels == 5)]:
        weight = entropy_weight(student[chosen], teacher[chosen], temperature=2.0)
        expected = [
            entropy(teacher[chosen], temperature=2.0).mean(),
            entropy(student[chosen], temperature=2.0).mean(),
            weight.mean(),
            weight.quantile(0.1),
            weight.quantile(0.9),
        ]
        got = [result[f"distill/{part}/{column}"] for column in COLUMNS]
        assert got == pytest.approx([value.item() for value in expected], rel=1e-5)


def test_options_count(logits):
    labels = torch.zeros(40, dtype=torch.int64)
    base = roi_statistics(*logits, labels, temperature=2.0, bound=None)
    assert base != roi_statistics(*logits, labels, temperature=3.0, bound=None)
    assert base != roi_statistics(*logits, labels, temperature=2.0, bound=100.0)


def test_an_empty_part_is_left_out(logits):
    labels = torch.full((40,), 5)
    result = roi_statistics(*logits, labels, temperature=1.0, bound=None)
    assert {key.split("/")[1] for key in result} == {"background"}
    nothing = roi_statistics(*(x[:0] for x in logits), labels[:0], temperature=1.0, bound=None)
    assert nothing == {}


def test_the_terminal_line_shows_them(caplog):
    with EventStorage(19) as storage, caplog.at_level(logging.INFO):
        storage.put_scalar("total_loss", 1.0)
        values = {f"distill/foreground/{column}": i / 8 for i, column in enumerate(COLUMNS, 1)}
        storage.put_scalars(**values, smoothing_hint=False)
        DistillMetricPrinter(100).write()
    [line] = [record.getMessage() for record in caplog.records]
    assert "total_loss: 1 " in line
    assert line.rstrip().endswith("foreground H_T 0.125 H_S 0.25 w_EA 0.375 [0.5, 0.62]")
    assert "background" not in line

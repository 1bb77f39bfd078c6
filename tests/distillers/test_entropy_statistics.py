import logging

import pytest
import torch
from detectron2.utils.events import EventStorage

from eakd_det.distillers import LogitPair
from eakd_det.distillers.entropy_statistics import COLUMNS, entropy_statistics
from eakd_det.engine.hooks.writers import DistillMetricPrinter
from eakd_det.losses import entropy, entropy_weight


def statistics(labels, *, samples=40, temperature=2.0, bound=None, pairs=1, **options):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(samples, 6, generator=generator)
    teacher = 3 * torch.randn(samples, 6, generator=generator)
    pair = LogitPair(student, teacher, labels, 1.0, **{"has_background": True, **options})
    entropies = [pair.entropies(temperature)] * pairs
    return pair, entropy_statistics([pair] * pairs, entropies, bound=bound)


@pytest.mark.parametrize("pairs", [1, 3])
def test_parts_are_separate(pairs):
    labels = torch.arange(40) % 6
    pair, result = statistics(labels, pairs=pairs)
    for part, chosen in [("foreground", labels < 5), ("background", labels == 5)]:
        student, teacher = pair.student_logits[chosen], pair.teacher_logits[chosen]
        weight = entropy_weight(student, teacher, temperature=2.0)
        expected = [
            entropy(teacher, temperature=2.0).mean(),
            entropy(student, temperature=2.0).mean(),
            weight.mean(),
            weight.repeat(pairs).quantile(0.1),
            weight.repeat(pairs).quantile(0.9),
        ]
        got = [result[f"distill/{part}/{column}"] for column in COLUMNS]
        assert got == pytest.approx([value.item() for value in expected], rel=1e-5)


def test_images_have_no_background():
    _, result = statistics(torch.arange(40) % 6, has_background=False)
    assert {key.split("/")[1] for key in result} == {"images"}


def test_options_count():
    labels = torch.zeros(40, dtype=torch.int64)
    _, base = statistics(labels)
    assert base != statistics(labels, temperature=3.0)[1]
    assert base != statistics(labels, bound=100.0)[1]


def test_an_empty_part_is_left_out():
    _, result = statistics(torch.full((40,), 5))
    assert {key.split("/")[1] for key in result} == {"background"}
    _, of_a_sigmoid = statistics(torch.full((40,), 5), sigmoid=True)  # label 6 is background
    assert {key.split("/")[1] for key in of_a_sigmoid} == {"foreground"}
    assert statistics(torch.zeros(0), samples=0)[1] == {}


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

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from eakd_det.distillers import DISTILLERS, BoxHeads, ClassMap
from eakd_det.distillers.heads import deltas_of_labels
from eakd_det.losses import (
    HeadBridges,
    bernoulli_kd_loss,
    bounded_box_loss,
    fcfd_heads_loss,
)

from .batches import make_batch, make_pair

CLASSES = 3  # of `make_pair`; label 3 is background


def _box_pair(student_width=4 * CLASSES, teacher_width=4 * CLASSES, **options):
    generator = torch.Generator().manual_seed(5)
    targets = torch.randn(7, 4, generator=generator)
    targets[3] = torch.nan  # of a background ROI: without meaning
    return make_pair(
        student_deltas=torch.randn(7, student_width, generator=generator),
        teacher_deltas=torch.randn(7, teacher_width, generator=generator),
        target_deltas=lambda: targets,
        **options,
    )


@pytest.mark.parametrize("student_width", [4, 12])
@pytest.mark.parametrize("teacher_width", [4, 12])
@pytest.mark.parametrize("weighted", [False, True])
def test_box_loss_of_each_foreground_roi(student_width, teacher_width, weighted):
    """The labelled class of class-specific heads; the teacher's in the student's units."""
    scale = (1.0, 2.0, 0.5, 3.0)
    weight = torch.rand(7) if weighted else None
    pair = _box_pair(student_width, teacher_width, delta_scale=scale, sample_weight=weight)
    options = {"margin": 0.5, "beta": 0.3}
    loss = DISTILLERS["BOX"](make_batch(pair), **options)[""]
    total = 0.0
    for n, label in enumerate(pair.labels.tolist()):
        if label == CLASSES:
            continue
        student, teacher = (
            x[n] if len(x[n]) == 4 else x[n, 4 * label : 4 * label + 4]
            for x in (pair.student_deltas, pair.teacher_deltas)
        )
        rows = student, teacher * torch.tensor(scale), pair.target_deltas()[n]
        value = bounded_box_loss(*(x[None] for x in rows), **options)
        total = total + value * (weight[n] if weighted else 1)
    assert_close(loss, total / 7)  # all sampled ROIs
    assert loss > 0


def test_box_loss_of_the_classes_in_common():
    """The teacher's classes 2 and 1 are the student's 1 and 0; its class 2 has no counterpart."""
    pair, weight = _box_pair(), torch.rand(7)
    mapped = ClassMap(("b", "a"), (1, 0), (2, 1), 3, 3)(pair)
    mapped.sample_weight = weight[pair.labels != 2]
    loss = DISTILLERS["BOX"](make_batch(mapped), margin=1e3)[""]
    total = 0.0
    for n, label in enumerate(pair.labels.tolist()):
        if label > 1:
            continue
        student = pair.student_deltas[n, 4 * label : 4 * label + 4]
        teacher = pair.teacher_deltas[n, 4 * label + 4 : 4 * label + 8]
        rows = student, teacher, pair.target_deltas()[n]
        value = bounded_box_loss(*(x[None] for x in rows), margin=1e3)
        total = total + value * weight[n]
    assert_close(loss, total / 7)


def test_box_loss_of_stages_and_of_no_roi():
    pairs = [_box_pair(suffix=f"_stage{i}") for i in range(2)]
    assert list(DISTILLERS["BOX"](make_batch(*pairs))) == ["_stage0", "_stage1"]
    empty = _box_pair()
    for name in ("student_logits", "teacher_logits", "labels", "student_deltas", "teacher_deltas"):
        setattr(empty, name, getattr(empty, name)[:0])
    empty.student_deltas.requires_grad_()
    empty.target_deltas, empty.normalizer = lambda: torch.zeros(0, 4), 1
    loss = DISTILLERS["BOX"](make_batch(empty))[""]
    assert loss == 0
    loss.backward()


def test_deltas_of_labels():
    deltas = torch.arange(24.0).view(2, 12)
    assert deltas_of_labels(deltas, torch.tensor([2, 0])).tolist() == [
        [8, 9, 10, 11],
        [12, 13, 14, 15],
    ]
    background = deltas_of_labels(deltas, torch.tensor([3, 3]))
    assert background.shape == (2, 4)
    assert torch.equal(deltas_of_labels(deltas[:, :4], torch.tensor([2, 3])), deltas[:, :4])


@pytest.mark.parametrize("weighted", [False, True])
def test_objectness(weighted):
    weight = torch.rand(7) if weighted else None
    pair = make_pair(sigmoid=True, normalizer=512.0, sample_weight=weight)
    pair.student_logits, pair.teacher_logits = torch.randn(2, 7, 1)
    loss = DISTILLERS["RPN"](make_batch(objectness=pair), temperature=2.0)
    logits = pair.student_logits, pair.teacher_logits
    expected = bernoulli_kd_loss(*logits, temperature=2.0, weight=weight)
    assert_close(loss, {"": expected * 7 / 512})


class _Head(nn.Module):
    """Class logits and deltas of 7 ROIs from two maps."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(5 * 4 * 4, width) for width in (4, 12))

    def forward(self, maps):
        x = sum(maps).flatten(1).repeat(3, 1)[:7]
        return tuple(layer(x) for layer in self.layers)


def _fcfd(**options):
    torch.manual_seed(0)
    student, teacher = _Head(), _Head().requires_grad_(False)
    batch = make_batch(_box_pair(**options), heads=BoxHeads(student, teacher))
    for name in ("student_features", "teacher_features"):
        [maps] = getattr(batch, name)
        setattr(batch, name, [maps, maps + 1, maps - 1])
    adapter = DISTILLERS["FCFD"].build_adapter([5] * 3, [5] * 3, [0, 1])
    return batch, adapter.eval(), student, teacher


@pytest.mark.parametrize("weighted", [False, True])
def test_fcfd(weighted):
    """The image weight is that of the maps, the ROI weight that of the predictions."""
    batch, adapter, student, teacher = _fcfd(sample_weight=torch.rand(7) if weighted else None)
    assert isinstance(adapter, HeadBridges)
    options = {"temperature": 2.0, "app_weight": 0.5, "kd_weight": 2.0, "l2_weight": 0.3}
    losses = DISTILLERS["FCFD"](batch, adapter=adapter, **options)
    [pair] = batch.logit_pairs
    bridged = adapter.to_teacher(batch.student_features)
    expected = fcfd_heads_loss(
        bridged,
        batch.teacher_features,
        [
            (pair.student_logits, pair.student_deltas),
            teacher(bridged[:2]),
            student(adapter.to_student(batch.teacher_features)),
        ],
        (pair.teacher_logits, pair.teacher_deltas),
        image_weight=batch.image_weight(),
        weight=pair.sample_weight,
        **options,
    )
    assert (batch.image_weight() is not None) == weighted
    assert_close(losses, {f"_{part}": loss for part, loss in expected.items()})
    sum(losses.values()).backward()
    assert all(p.grad.any() for p in [*student.parameters(), *adapter.parameters()])
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("name", ["BOX", "RPN", "FCFD"])
def test_every_option_changes_the_loss(name):
    distiller = DISTILLERS[name]
    more = {}
    if name == "FCFD":
        batch, more["adapter"], *_ = _fcfd()
    else:
        batch = make_batch(_box_pair(), objectness=make_pair(sigmoid=True))
    before = distiller(batch, **distiller.defaults, **more)
    for option, value in distiller.defaults.items():
        after = distiller(batch, **{**distiller.defaults, option: value + 0.5}, **more)
        assert any(not torch.equal(after[key], before[key]) for key in before), option

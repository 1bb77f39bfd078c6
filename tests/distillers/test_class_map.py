import pytest
import torch
from torch.testing import assert_close

from eakd_det.distillers import ClassMap, match_classes
from eakd_det.losses import dkd_loss, kd_loss
from eakd_det.utils.errors import UserError

from .batches import make_pair

STUDENT, TEACHER = ("coat", "hat", "jumper"), ("bag", "pullover", "coat", "boot", "shirt")
CLASSES = ("coat", ["jumper", "pullover"])


def _pair(**options):
    generator = torch.Generator().manual_seed(2)
    teacher = torch.randn(7, 6, generator=generator)
    return make_pair(teacher_logits=teacher, labels=torch.tensor([0, 1, 2, 3, 1, 3, 0]), **options)


@pytest.fixture
def classes():
    return match_classes(CLASSES, STUDENT, TEACHER)


def test_names_of_both(classes):
    assert classes == ClassMap(("coat", "jumper"), (0, 2), (2, 1), 3, 5)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("coat", "jumpr"), "the student has no class 'jumpr'; did you mean 'jumper'?"),
        ((["hat", "shrt"],), "the teacher has no class 'shrt'; did you mean 'shirt'?"),
        (("zebra",), "no class 'zebra'; the classes are coat, hat, jumper."),
        ((["hat", "coat"], "coat"), "pairs the teacher's class 'coat' twice"),
        (("coat", ["coat", "bag"]), "pairs the student's class 'coat' twice"),
        ((3,), 'CLASSES: 3 is neither a name nor a pair .* such as ."jumper", "pullover"'),
    ],
)
def test_mistakes(classes, message):
    with pytest.raises(UserError, match=message):
        match_classes(classes, STUDENT, TEACHER)


def test_probabilities_of_other_classes_go_to_background(classes):
    pair = _pair()
    mapped = classes(pair)
    kept = pair.labels != 1  # hats are learnt from the labels alone
    assert mapped.labels.tolist() == [0, 1, 2, 2, 0]
    assert mapped.num_classes == 2 and mapped.num_outcomes == 3 and mapped.normalizer == 7
    p = pair.teacher_logits[kept].softmax(dim=1)
    expected = torch.stack([p[:, 2], p[:, 1], p[:, [0, 3, 4, 5]].sum(dim=1)], dim=1)
    assert_close(mapped.teacher_logits.softmax(dim=1), expected)
    assert torch.equal(mapped.student_logits, pair.student_logits[kept][:, [0, 2, 3]])
    assert mapped.images().tolist() == [0, 0, 2, 2, 2]


def test_all_classes_in_order_change_nothing():
    pair = make_pair()
    names = ("a", "b", "c")
    mapped = match_classes(names, names, names)(pair)
    assert torch.equal(mapped.student_logits, pair.student_logits)
    assert_close(mapped.teacher_logits, pair.teacher_logits)
    assert torch.equal(mapped.labels, pair.labels) and mapped.images is pair.images
    for loss in (kd_loss, lambda *x, **kw: dkd_loss(*x, pair.labels)):
        before, after = (loss(x.student_logits, x.teacher_logits) for x in (pair, mapped))
        assert_close(before, after)


def test_a_loss_over_the_common_classes(classes):
    """Sample by sample, with the sums of probabilities written out; its gradient as well."""
    pair = _pair()
    pair.student_logits.requires_grad_()
    mapped = classes(pair)
    loss = kd_loss(mapped.student_logits, mapped.teacher_logits, temperature=1.0, reduction="none")
    expected = []
    for row in (0, 2, 3, 5, 6):
        p = pair.teacher_logits[row].exp() / pair.teacher_logits[row].exp().sum()
        q = pair.student_logits[row][[0, 2, 3]].exp()
        target = [p[2], p[1], p[0] + p[3] + p[4] + p[5]]
        expected.append(sum(t * (t / x).log() for t, x in zip(target, q / q.sum(), strict=True)))
    assert_close(loss, torch.stack(expected))
    (grad,) = torch.autograd.grad(loss.sum(), pair.student_logits)
    (slow,) = torch.autograd.grad(sum(expected), pair.student_logits)
    assert_close(grad, slow)
    assert not grad[[1, 4]].any() and not grad[:, 1].any()


def test_a_sigmoid_has_the_common_columns(classes):
    """Its label of background is the number of its columns."""
    pair = _pair(sigmoid=True)
    pair.student_logits = pair.student_logits[:, :3]
    pair.teacher_logits = pair.teacher_logits[:, :5]
    mapped = classes(pair)
    kept = pair.labels != 1
    assert torch.equal(mapped.student_logits, pair.student_logits[kept][:, [0, 2]])
    assert torch.equal(mapped.teacher_logits, pair.teacher_logits[kept][:, [2, 1]])
    assert mapped.labels.tolist() == [0, 1, 2, 2, 0] and mapped.num_classes == 2


def test_box_deltas_follow_their_class(classes):
    """Class by class, or the same for all; targets and boxes are those of the samples kept."""
    targets, boxes = torch.randn(7, 4), torch.randn(3, 4)
    pair = _pair(target_deltas=lambda: targets, first_boxes=lambda: boxes)
    pair.student_deltas, pair.teacher_deltas = torch.randn(7, 12), torch.randn(7, 4)
    mapped, kept = classes(pair), pair.labels != 1
    by_class = pair.student_deltas[kept].view(5, 3, 4)
    assert torch.equal(mapped.student_deltas, by_class[:, [0, 2]].flatten(1))
    assert torch.equal(mapped.teacher_deltas, pair.teacher_deltas[kept])
    assert torch.equal(mapped.target_deltas(), targets[kept])
    assert torch.equal(mapped.first_boxes(), boxes[[0, 2]])


def test_no_samples(classes):
    pair = make_pair(labels=torch.zeros(0, dtype=torch.int64), teacher_logits=torch.zeros(0, 6))
    pair.student_logits = pair.student_logits[:0]
    assert classes(pair).student_logits.shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_logits_of_half_precision(classes, dtype):
    pair = _pair()
    pair.teacher_logits = (pair.teacher_logits * 1e4).to(dtype)
    assert torch.isfinite(classes(pair).teacher_logits).all()

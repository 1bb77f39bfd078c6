import pytest
import torch
from torch.testing import assert_close

from eakd_det.distillers import EA_MODES
from eakd_det.distillers.ea import BACKGROUND_WEIGHTS, weigh_pair
from eakd_det.losses import combine_entropies
from tests.reads import reads

from .batches import make_batch, make_pair

IS_FOREGROUND = torch.arange(7) % 4 < 3  # of make_pair: all but the fourth


def weigh(mode, *, pair=None, background="weighted", bound=5.0, entropies=None):
    """Return a pair with the weights of a mode."""
    pair = pair or make_pair()
    options = {"bound": bound, "background_weight": BACKGROUND_WEIGHTS[background]}
    weigh_pair(pair, *(entropies or pair.entropies(2.0)), mode=EA_MODES[mode], **options)
    return pair


def certain():
    """Entropies of a teacher that is certain throughout."""
    return torch.ones(7), torch.zeros(7)


def test_modes():
    student, teacher = make_pair().entropies(2.0)
    full = weigh("full").sample_weight
    assert torch.equal(full, combine_entropies(student, teacher, 4, 5.0))
    assert torch.equal(weigh("teacher").sample_weight, teacher)
    matched, normalized = (weigh(mode).sample_weight for mode in ("matched", "normalized"))
    assert_close(matched, torch.full_like(full, full.mean().item()))
    assert_close(normalized, full / full.mean())
    assert_close(normalized.mean(), torch.tensor(1.0))
    assert_close(matched * normalized, full)


def test_values_by_hand():
    """Half the student's bound: w_EA is 3/4 of the teacher's entropy, 0.75, 1.5 and 3.75."""
    logits = torch.zeros(3, 4)
    pair = make_pair(student_logits=logits, teacher_logits=logits, labels=torch.tensor([0, 1, 3]))
    pair.images = lambda: torch.tensor([0, 0, 0])
    entropies = torch.full((3,), 2.0), torch.tensor([1.0, 2.0, 5.0])
    for mode, background, expected in [
        ("full", "weighted", [0.75, 1.5, 3.75]),
        ("normalized", "weighted", [0.375, 0.75, 1.875]),
        ("matched", "weighted", [2.0, 2.0, 2.0]),
        ("full", "unweighted", [0.75, 1.5, 1.0]),
        ("teacher", "unweighted", [1.0, 2.0, 1.0]),
        ("normalized", "unweighted", [2 / 3, 4 / 3, 1.0]),
        ("matched", "unweighted", [1.125, 1.125, 1.0]),
        ("full", "ignored", [0.75, 1.5, 0.0]),
        ("normalized", "ignored", [2 / 3, 4 / 3, 0.0]),
        ("matched", "ignored", [1.125, 1.125, 0.0]),
    ]:
        pair.mean_weight = None
        weigh(mode, pair=pair, background=background, bound=4.0, entropies=entropies)
        assert_close(pair.sample_weight, torch.tensor(expected))


@pytest.mark.parametrize("background", BACKGROUND_WEIGHTS)
def test_a_certain_teacher(background):
    """Equal weights, all 0, are normalised to 1; so are those that underflow."""
    weight = weigh("normalized", background=background, entropies=certain()).sample_weight
    expected = torch.ones(7)
    if background == "ignored":
        expected[~IS_FOREGROUND] = 0
    assert torch.equal(weight, expected)
    tiny = torch.zeros(7)
    tiny[0] = 1e-45
    assert weigh("normalized", entropies=(torch.ones(7), tiny)).sample_weight.isfinite().all()
    small = torch.full((7,), 1e-30)
    assert_close(weigh("normalized", entropies=(small, small)).sample_weight, torch.ones(7))
    assert weigh("matched", entropies=certain()).sample_weight.eq(0).all()


def test_a_mean_that_is_not_finite_shows():
    entropies = torch.ones(7), torch.full((7,), torch.nan)
    assert weigh("normalized", entropies=entropies).sample_weight.isnan().all()


@pytest.mark.parametrize("background", BACKGROUND_WEIGHTS)
@pytest.mark.parametrize("mode", EA_MODES)
def test_weights_are_constants_and_nothing_is_read(mode, background):
    pair = make_pair()
    pair.student_logits.requires_grad_()
    pair.teacher_logits.requires_grad_()
    with reads() as names:
        weigh(mode, pair=pair, background=background, bound=None)
        make_batch(pair).image_weight()
    assert not names and not pair.sample_weight.requires_grad


@pytest.mark.parametrize("background", BACKGROUND_WEIGHTS)
@pytest.mark.parametrize("mode", EA_MODES)
def test_no_sample(mode, background):
    pair = make_pair(student_logits=torch.zeros(0, 4), teacher_logits=torch.zeros(0, 4))
    pair.labels = torch.zeros(0, dtype=torch.int64)
    assert weigh(mode, pair=pair, background=background).sample_weight.shape == (0,)


@pytest.mark.parametrize("mode", EA_MODES)
def test_background_of_all_samples(mode):
    """No foreground has a mean of 0; the weights are those of background."""
    pairs = [
        weigh(mode, pair=make_pair(labels=torch.full((7,), 3)), background=background)
        for background in ("unweighted", "ignored")
    ]
    assert [pair.sample_weight.tolist() for pair in pairs] == [[1.0] * 7, [0.0] * 7]


@pytest.mark.parametrize("sigmoid", [False, True])
def test_background_of_a_sigmoid(sigmoid):
    """Its label follows those of all columns, as for the objectness of an RPN."""
    labels = torch.tensor([4 if sigmoid else 3, 0, 1, 2, 0, 1, 2])
    full, apart = (
        weigh("full", pair=make_pair(labels=labels, sigmoid=sigmoid), background=background)
        for background in ("weighted", "unweighted")
    )
    assert apart.sample_weight[0] == 1 != full.sample_weight[0]
    assert torch.equal(apart.sample_weight[1:], full.sample_weight[1:])


def test_a_given_mean():
    for mode, expected in [("matched", 0.5), ("normalized", 2.0)]:
        pair = make_pair(mean_weight=torch.tensor(0.5))
        entropies = torch.zeros(7), torch.full((7,), 2.0)
        weigh(mode, pair=pair, entropies=entropies)
        assert_close(pair.sample_weight, torch.full((7,), expected))


TWO_MEANS = """
import torch
from torch import distributed

from eakd_det.distillers import EA_MODES, LogitPair
from eakd_det.distillers.ea import weigh_pair

distributed.init_process_group("gloo")
rank = distributed.get_rank()
full = torch.tensor([[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]][rank])  # half the teacher's entropy
labels = torch.tensor([[0, 3, 1], [2, 3, 3]][rank])  # 3 is background
for background, mean in [(None, 5.0), (1.0, 13 / 3), (0.0, 13 / 3)]:
    for mode, expected in [("matched", torch.full((3,), mean)), ("normalized", full / mean)]:
        if background is not None:
            expected[labels == 3] = background
        pair = LogitPair(torch.zeros(3, 4), torch.zeros(3, 4), labels, 1.0, has_background=True)
        options = {"mode": EA_MODES[mode], "bound": 5.0, "background_weight": background}
        weigh_pair(pair, torch.zeros(3), 2 * full, **options)
        torch.testing.assert_close(pair.sample_weight, expected)
"""


def test_the_mean_is_that_of_two_processes(call_code):
    code, out, err = call_code(TWO_MEANS, ranks=2)
    assert code == 0, out + err

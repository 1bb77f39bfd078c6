import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import bernoulli_dist_loss, dist_loss, entropy_weight
from tests.golden import PRECISIONS, golden_case

from .contract import HALVES, check_autocast, make_logits, one_hot_logits, softmax

CASES = ["in1k", "cifar_t4", "small", "roi", "n1", "two_classes", "confident"]
OPTIONS = {"beta": 2.0, "gamma": 0.5, "temperature": 2.5}


def _correlation(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt() + 1e-8)


def _slow(student, teacher, weight, probabilities, *, beta, gamma, temperature):
    """Row after row, then column after column."""
    q, p = probabilities(student, temperature), probabilities(teacher, temperature)
    inter = sum(w * (1 - _correlation(a, b)) for w, a, b in zip(weight, q, p, strict=True))
    intra = sum(1 - _correlation(a, b) for a, b in zip(q.T, p.T, strict=True)) / q.shape[1]
    return temperature**2 * (beta * inter / len(q) + gamma * intra * weight.mean())


def _sigmoid(logits, temperature):
    return 1 / (1 + (-logits / temperature).exp())


@pytest.mark.parametrize(
    ("loss", "probabilities"), [(dist_loss, softmax), (bernoulli_dist_loss, _sigmoid)]
)
@pytest.mark.parametrize("weighted", [False, True])
def test_matches_the_slow_formula(loss, probabilities, weighted):
    student, teacher = make_logits((6, 5), 1).requires_grad_(), make_logits((6, 5), 2)
    weight = torch.linspace(0.5, 2, 6).double() if weighted else None
    got = loss(student, teacher, weight=weight, **OPTIONS)
    ones = torch.ones(6, dtype=torch.float64)
    exact = _slow(student, teacher, ones if weight is None else weight, probabilities, **OPTIONS)
    assert_close(got, exact)
    assert_close(*(torch.autograd.grad(x, student)[0] for x in (got, exact)))


@pytest.mark.parametrize("loss", [dist_loss, bernoulli_dist_loss])
def test_gradcheck(loss):
    student, teacher = make_logits((4, 3), 1).requires_grad_(), make_logits((4, 3), 2)
    weight = torch.linspace(0, 2, 4, dtype=torch.float64)
    for options in [{}, {"weight": weight}, {"weight": weight, "reduction": "none"}]:
        assert torch.autograd.gradcheck(
            lambda logits, o=options: loss(logits, teacher, **o, **OPTIONS), student
        )


@pytest.mark.parametrize("loss", [dist_loss, bernoulli_dist_loss])
def test_properties(loss):
    student, teacher = make_logits((6, 5), 1).requires_grad_(), make_logits((6, 5), 2)
    teacher.requires_grad_()
    assert 0 <= loss(student, student.detach()) < 1e-6, "1e-8 is added to the norms"
    each = loss(student, teacher, reduction="none")
    assert (each > 0).all()
    assert_close(each.mean(), loss(student, teacher))
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.equal(loss(student, teacher, weight=ones), loss(student, teacher))
    weight = torch.rand(6, dtype=torch.float64)
    assert_close(loss(student, teacher, weight=weight), (weight * each).mean())
    loss(student, teacher).backward()
    assert student.grad.any() and teacher.grad is None


def test_weight_of_samples_and_of_the_batch():
    """The inter term is weighted row by row, the intra term by the mean weight."""
    student, teacher = make_logits((6, 5), 1), make_logits((6, 5), 2)
    weight = entropy_weight(student, teacher)
    inter = dist_loss(student, teacher, gamma=0.0, reduction="none")
    intra = dist_loss(student, teacher, beta=0.0)
    expected = (weight * inter).mean() + weight.mean() * intra
    assert_close(dist_loss(student, teacher, weight=weight), expected)


@pytest.mark.parametrize("loss", [dist_loss, bernoulli_dist_loss])
@pytest.mark.parametrize("weight", [None, torch.ones(0)])
def test_no_samples_give_a_zero_in_the_graph(loss, weight):
    student = torch.zeros(0, 5, requires_grad=True)
    value = loss(student, torch.zeros(0, 5), weight=weight)
    assert value == 0
    value.backward()
    assert student.grad.shape == (0, 5)


@pytest.mark.parametrize("loss", [dist_loss, bernoulli_dist_loss])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(loss, dtype):
    student = torch.cat([one_hot_logits(i, 81, dtype) for i in (3, 5)]).requires_grad_()
    teacher = one_hot_logits(3, 81, dtype).repeat(2, 1)
    value = loss(student, teacher)
    value.backward()
    assert value.isfinite() and value > 0 and value.dtype == torch.float32
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype):
    check_autocast(dist_loss, dtype)


def test_refuses():
    logits = make_logits((6, 5), 1)
    with pytest.raises(ValueError, match="weight .* 6 samples"):
        dist_loss(logits, logits, weight=torch.ones(5))
    with pytest.raises(ValueError, match="reduction .* got 'sum'"):
        dist_loss(logits, logits, reduction="sum")


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_released_code(name, dtype):
    case = golden_case("features/dist", name)
    student, teacher = case["student"].to(dtype).requires_grad_(), case["teacher"].to(dtype)
    beta, gamma, temperature, factor = (
        case[key].item() for key in ("beta", "gamma", "tau", "loss_weight")
    )
    options = {"beta": beta, "gamma": gamma, "temperature": temperature}
    loss = factor * dist_loss(student, teacher, **options)
    tolerance = {"rtol": PRECISIONS[dtype], "atol": PRECISIONS[dtype]}
    assert_close(loss.double(), case["loss"], **tolerance)
    assert_close(torch.autograd.grad(loss, student)[0].double(), case["grad"], **tolerance)
    terms = {"inter": (1.0, 0.0), "intra": (0.0, 1.0)}
    for term, (beta, gamma) in terms.items():
        value = dist_loss(student, teacher, beta=beta, gamma=gamma, temperature=temperature)
        assert_close((value / temperature**2).double(), case[term], **tolerance)
    each = dist_loss(student, teacher, gamma=0.0, temperature=temperature, reduction="none")
    assert_close((each / temperature**2).double(), case["inter_per_sample"], **tolerance)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize(
    ("name", "loss"), [("retina_sigmoid", bernoulli_dist_loss), ("seg_softmax", dist_loss)]
)
def test_released_code_on_maps(name, loss, dtype):
    """Rows are the pixels of a level, columns its channels."""
    case = golden_case("features/dist", name)
    beta, gamma, factor = (case[key].item() for key in ("beta", "gamma", "loss_weight"))
    tolerance = {"rtol": PRECISIONS[dtype], "atol": PRECISIONS[dtype]}
    for level, expected in enumerate(case["loss_by_level"]):
        maps = [case[f"{side}{level}"].to(dtype) for side in ("student", "teacher")]
        student = maps[0].requires_grad_()
        rows = [x.permute(0, 2, 3, 1).flatten(0, 2) for x in maps]
        value = factor * loss(*rows, beta=beta, gamma=gamma)
        assert_close(value.double(), expected, **tolerance)
        (gradient,) = torch.autograd.grad(value, student)
        assert_close(gradient.double(), case[f"grad_student{level}"], **tolerance)

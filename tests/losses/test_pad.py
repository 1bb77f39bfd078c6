import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import PrimeAwareHead, pad_loss

from .contract import HALVES, assert_matches, check_against_rows, make_logits

SHAPES = [(1, 1), (1, 640), (3, 7), (5, 64)]
DTYPES = [torch.float64, torch.float32, *HALVES]


def make_inputs(shape, dtype=torch.float64, *, per_sample=False):
    """Features of student and teacher, log variances; all but the teacher's require gradients."""
    student, teacher, log_variance = (
        make_logits(shape, seed, dtype, scale=1) for seed in (1, 2, 3)
    )
    log_variance = log_variance[:, 0] if per_sample else log_variance
    return student.requires_grad_(), teacher, log_variance.clone().requires_grad_()


def row_loss(student, teacher, log_variance):
    """Loss of one sample, dimension by dimension."""
    variances = log_variance.exp().expand(len(student))
    terms = [
        (t - s) ** 2 / v + v.log() for s, t, v in zip(student, teacher, variances, strict=True)
    ]
    return sum(terms) / len(terms)


@pytest.fixture(params=[False, True], ids=["per_dimension", "per_sample"])
def inputs(request):
    return make_inputs((6, 5), per_sample=request.param)


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_slow_formula(shape, dtype, per_sample):
    student, teacher, log_variance = (
        x.detach() for x in make_inputs(shape, dtype, per_sample=per_sample)
    )
    check_against_rows(
        lambda x: pad_loss(x, teacher, log_variance, reduction="none"),
        lambda n, row: row_loss(row, teacher[n].double(), log_variance[n].double()),
        student,
    )
    check_against_rows(
        lambda x: pad_loss(student, teacher, x, reduction="none"),
        lambda n, row: row_loss(student[n].double(), teacher[n].double(), row),
        log_variance,
    )


def test_gradcheck(inputs):
    student, teacher, log_variance = inputs
    weight = torch.linspace(0, 2, 6, dtype=torch.float64)
    for options in [{}, {"weight": weight}, {"weight": weight, "reduction": "none"}]:
        assert torch.autograd.gradcheck(
            lambda s, v, o=options: pad_loss(s, teacher, v, **o), (student, log_variance)
        )


def test_variance_of_1_is_the_mean_squared_error():
    student, teacher, _ = make_inputs((6, 5))
    loss = pad_loss(student, teacher, torch.zeros(6, dtype=torch.float64))
    assert_close(loss, torch.nn.functional.mse_loss(student, teacher))


def test_is_least_at_the_squared_difference():
    student, teacher, _ = make_inputs((6, 5))
    best = (student - teacher).detach().square().log().requires_grad_()
    loss = pad_loss(student, teacher, best)
    (gradient,) = torch.autograd.grad(loss, best, retain_graph=True)
    assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)
    assert_close(loss, 1 + best.mean())


def test_is_the_likelihood_of_a_normal_distribution(inputs):
    student, teacher, log_variance = inputs
    log_variance = log_variance.reshape(6, -1).expand(6, 5)
    normal = torch.distributions.Normal(student, (log_variance / 2).exp())
    constant = torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
    assert_close(
        pad_loss(student, teacher, log_variance), -2 * normal.log_prob(teacher).mean() - constant
    )


def test_uncertain_samples_pull_less():
    student, teacher, _ = make_inputs((2, 5))
    student = student[:1].detach().repeat(2, 1).requires_grad_()
    log_variance = torch.tensor([0.0, 2.0], dtype=torch.float64)
    pad_loss(student, teacher[:1].repeat(2, 1), log_variance).backward()
    assert_close(student.grad[1], student.grad[0] / torch.e**2)


def test_one_variance_a_sample_is_that_of_each_dimension():
    student, teacher, log_variance = make_inputs((6, 5), per_sample=True)
    assert torch.equal(
        pad_loss(student, teacher, log_variance),
        pad_loss(student, teacher, log_variance[:, None].repeat(1, 5)),
    )


def test_mean_is_the_mean_over_samples(inputs):
    assert_close(pad_loss(*inputs), pad_loss(*inputs, reduction="none").mean())


def test_weights_scale_each_sample(inputs):
    weight = torch.linspace(0, 2, 6, dtype=torch.float64)
    plain = pad_loss(*inputs, reduction="none")
    assert_close(pad_loss(*inputs, weight=weight), (weight * plain).mean())
    ones = torch.ones(6, dtype=torch.float64)
    assert torch.equal(pad_loss(*inputs, weight=ones), pad_loss(*inputs))


def test_teacher_and_weight_get_no_gradient(inputs):
    student, teacher, log_variance = inputs
    teacher.requires_grad_()
    weight = torch.ones(6, dtype=torch.float64, requires_grad=True)
    pad_loss(*inputs, weight=weight).backward()
    assert student.grad.any()
    assert log_variance.grad.any()
    assert teacher.grad is None
    assert weight.grad is None


@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize("weight", [None, torch.ones(0)])
def test_no_samples_give_a_zero_in_the_graph(weight, per_sample):
    student, teacher, log_variance = make_inputs((0, 5), per_sample=per_sample)
    loss = pad_loss(student, teacher, log_variance, weight=weight)
    assert loss.shape == ()
    assert loss == 0
    loss.backward()
    assert student.grad.shape == student.shape
    assert log_variance.grad.shape == log_variance.shape


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((6, 5), (6, 4), (6, 5)), {}, r"student features \(6, 5\), teacher features \(6, 4\)"),
        (((6, 5), (6, 5), (6, 4)), {}, r"do not match.*log variances \(6, 4\)"),
        (((6, 5), (6, 5), (5,)), {}, r"do not match.*log variances \(5,\)"),
        (((6, 5), (6, 5), (6,)), {"weight": torch.ones(6, 1)}, r"got shape \(6, 1\)"),
        (((6, 5), (6, 5), (6,)), {"reduction": "sum"}, "reduction .* got 'sum'"),
    ],
)
def test_refuses(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        pad_loss(*map(torch.zeros, shapes), **options)


@pytest.mark.parametrize("samples", [0, 1, 4])
@pytest.mark.parametrize("widths", [(8, 8), (8, 12)])
def test_head_gives_what_the_loss_takes(widths, samples):
    head = PrimeAwareHead(*widths)
    mapped, log_variance = head(torch.randn(samples, widths[0]))
    assert mapped.shape == log_variance.shape == (samples, widths[1])
    pad_loss(mapped, torch.randn(samples, widths[1]), log_variance).backward()
    for parameter in head.parameters():
        assert parameter.grad.isfinite().all()


def test_head_compares_equal_widths_as_they_are():
    features = torch.randn(4, 8)
    assert torch.equal(PrimeAwareHead(8, 8)(features)[0], features)


def test_head_has_batch_norm_on_the_variance():
    _, log_variance = PrimeAwareHead(8, 12)(5 + 3 * torch.randn(50, 8))
    assert_close(log_variance.mean(dim=0), torch.zeros(12), atol=1e-5, rtol=0)
    assert_close(log_variance.std(dim=0, correction=0), torch.ones(12), atol=1e-3, rtol=0)


def test_head_learns_which_samples_are_hard():
    """Half the samples are noise for the teacher, which their last feature gives away."""
    torch.manual_seed(0)
    head = PrimeAwareHead(5, 4)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    projection = torch.randn(5, 4)
    for _ in range(300):
        features = torch.randn(64, 5)
        features[:, 4] = torch.arange(64) % 2
        teacher = features @ projection + 3 * features[:, 4:] * torch.randn(64, 4)
        optimizer.zero_grad()
        mapped, log_variance = head(features)
        pad_loss(mapped, teacher, log_variance).backward()
        optimizer.step()
    easy, hard = log_variance[::2].mean(), log_variance[1::2].mean()
    assert hard > easy + 1


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast(dtype):
    """The loss of halves is that of the same numbers in float32."""
    head, features, teacher = PrimeAwareHead(8, 12), torch.randn(4, 8), torch.randn(4, 12)
    with torch.autocast("cpu", dtype=dtype):
        mapped, log_variance = head(features)
        inside = pad_loss(mapped, teacher, log_variance)
    assert mapped.dtype == dtype
    assert inside.dtype == torch.float32
    assert_matches(inside.detach(), pad_loss(mapped, teacher, log_variance).double().detach())

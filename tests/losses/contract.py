"""Helpers of the losses' tests, and the contract that every per-sample loss on logits keeps."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import entropy_weight

HALVES = [torch.float16, torch.bfloat16]
SHAPES = [(0, 7), (1, 2), (1, 1000), (3, 7), (5, 81)]
# (atol, rtol) of a figure that comes in the dtype. Only gradients come in halves, and they are
# rounded to them once, at the end: 2^-11 and 2^-8 of their value.
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (1e-5, 1e-5),
    torch.float16: (1e-5, 2**-11),
    torch.bfloat16: (1e-5, 2**-8),
}
TABLE = [
    pytest.param(shape, dtype, id=f"{shape[0]}x{shape[1]}-{str(dtype).removeprefix('torch.')}")
    for shape, dtype in itertools.product(SHAPES, TOLERANCES)
]
each_shape_and_dtype = pytest.mark.parametrize(("shape", "dtype"), TABLE)


def make_logits(shape, seed, dtype=torch.float64, scale=3.0):
    """Random (N, C) logits."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def make_labels(shape):
    """(N,) classes, the first and the last of them included."""
    samples, classes = shape
    return (torch.arange(samples) * 3 - 1) % classes


def one_hot_logits(index, classes, dtype, high=1e4):
    """(1, C) logits, `high` at `index` and -`high` elsewhere: the softmax is one-hot."""
    logits = torch.full((1, classes), -high, dtype=dtype)
    logits[:, index] = high
    return logits


def softmax(logits, temperature=1.0):
    """The textbook formula; overflows from logits of 700 on."""
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def assert_matches(actual, exact):
    """Compare with an exact float64 figure, at the tolerance of `actual`'s dtype."""
    atol, rtol = TOLERANCES[actual.dtype]
    assert_close(actual.double(), exact, atol=atol, rtol=rtol)


def check_against_rows(function, row_function, logits):
    """Compare a function of (N, C) logits, and its gradient, with a loop over rows in float64.

    `row_function` takes the number of the row and its (C,) logits.
    """
    logits = logits.clone().requires_grad_()
    output = function(logits)
    assert output.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)

    exact_logits = logits.detach().double().requires_grad_()
    rows = [row_function(n, row) for n, row in enumerate(exact_logits)]
    exact = torch.stack(rows) if rows else exact_logits.sum(dim=1)[: len(output)]
    assert_matches(output, exact.detach().reshape(output.shape))

    direction = make_logits(output.shape, seed=9)
    (gradient,) = torch.autograd.grad((output.double() * direction).sum(), logits)
    (exact_gradient,) = torch.autograd.grad(
        (exact.reshape(output.shape) * direction).sum(), exact_logits
    )
    assert gradient.dtype == logits.dtype
    assert_matches(gradient, exact_gradient)


def check_autocast(function, dtype):
    """Check that logits of a Linear layer give the same under autocast as outside, in float32."""
    torch.manual_seed(0)
    student, teacher = torch.nn.Linear(16, 81), torch.nn.Linear(16, 81)
    features = 50 * torch.randn(5, 16)
    with torch.autocast("cpu", dtype=dtype):
        logits, teacher_logits = student(features), teacher(features)
        inside = function(logits, teacher_logits)
    assert logits.dtype == dtype
    assert inside.dtype == torch.float32
    assert_close(inside, function(logits, teacher_logits), atol=0, rtol=0)
    inside.sum().backward()
    assert student.weight.grad.isfinite().all()
    assert student.weight.grad.any()


class SampleLossContract:
    """Tests of a loss that a subclass gives as `loss` and, for one row in float64, `row_loss`."""

    def loss(self, student_logits, teacher_logits, labels, **options):
        raise NotImplementedError

    def row_loss(self, student_logits, teacher_logits, label):
        raise NotImplementedError

    @pytest.fixture
    def inputs(self):
        """Student logits that require a gradient, teacher logits, labels."""
        shape = (6, 5)
        student = make_logits(shape, seed=1).requires_grad_()
        return student, make_logits(shape, seed=2), make_labels(shape)

    @each_shape_and_dtype
    def test_matches_the_slow_formula(self, shape, dtype):
        student, teacher = make_logits(shape, 1, dtype), make_logits(shape, 2, dtype)
        labels = make_labels(shape)
        check_against_rows(
            lambda logits: self.loss(logits, teacher, labels, reduction="none"),
            lambda n, row: self.row_loss(row, teacher[n].double(), labels[n]),
            student,
        )

    def test_gradcheck(self, inputs):
        student, teacher, labels = inputs
        weight = torch.linspace(0, 2, len(student), dtype=torch.float64)
        for options in [{}, {"weight": weight}, {"weight": weight, "reduction": "none"}]:
            assert torch.autograd.gradcheck(
                lambda logits, o=options: self.loss(logits, teacher, labels, **o), student
            )

    def test_equal_logits_give_zero(self, inputs):
        student, _, labels = inputs
        loss = self.loss(student, student.detach().clone(), labels)
        assert loss == 0
        (gradient,) = torch.autograd.grad(loss, student)
        assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)

    def test_is_positive_for_different_logits(self, inputs):
        assert (self.loss(*inputs, reduction="none") > 0).all()

    def test_mean_is_the_mean_over_samples(self, inputs):
        assert_close(self.loss(*inputs), self.loss(*inputs, reduction="none").mean())

    def test_permuting_the_batch_permutes(self, inputs):
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        permuted = self.loss(*(tensor[order] for tensor in inputs), reduction="none")
        assert_close(permuted, self.loss(*inputs, reduction="none")[order])

    def test_shifting_logits_changes_nothing(self, inputs):
        student, teacher, labels = inputs
        shift = make_logits((len(student), 1), seed=3, scale=50)
        assert_close(self.loss(student + shift, teacher - shift, labels), self.loss(*inputs))

    def test_weight_of_ones_changes_nothing(self, inputs):
        ones = torch.ones(len(inputs[0]), dtype=torch.float64)
        assert torch.equal(self.loss(*inputs, weight=ones), self.loss(*inputs))

    def test_constant_weight_scales(self, inputs):
        weight = torch.full((len(inputs[0]),), 2.5, dtype=torch.float64)
        assert_close(self.loss(*inputs, weight=weight), 2.5 * self.loss(*inputs))

    def test_ea_form_weights_loss_and_gradient_of_each_sample(self, inputs):
        student, teacher, _ = inputs
        weight = entropy_weight(student, teacher)
        plain = self.loss(*inputs, reduction="none")
        weighted = self.loss(*inputs, weight=weight)
        assert_close(weighted, (weight * plain).mean())
        (gradient,) = torch.autograd.grad(weighted, student)
        (plain_gradient,) = torch.autograd.grad(plain.sum(), student)
        assert_close(gradient, weight[:, None] * plain_gradient / len(student))

    def test_teacher_and_weight_get_no_gradient(self, inputs):
        student, teacher, labels = inputs
        teacher.requires_grad_()
        weight = torch.ones(len(student), dtype=torch.float64, requires_grad=True)
        self.loss(student, teacher, labels, weight=weight).backward()
        assert student.grad.any()
        assert teacher.grad is None
        assert weight.grad is None

    @pytest.mark.parametrize("weight", [None, torch.ones(0)])
    def test_no_samples_give_a_zero_in_the_graph(self, weight):
        student = torch.zeros(0, 5, requires_grad=True)
        labels = torch.zeros(0, dtype=torch.int64)
        loss = self.loss(student, torch.zeros(0, 5), labels, weight=weight)
        assert loss.shape == ()
        assert loss == 0
        loss.backward()
        assert student.grad.shape == (0, 5)

    @pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
    def test_equal_saturated_logits_give_zero(self, dtype):
        student = one_hot_logits(3, 81, dtype).repeat(2, 1).requires_grad_()
        loss = self.loss(student, student.detach().clone(), torch.tensor([3, 7]))
        assert loss == 0
        loss.backward()
        assert_matches(student.grad, torch.zeros(2, 81, dtype=torch.float64))

    @pytest.mark.parametrize("dtype", HALVES)
    def test_autocast(self, dtype):
        labels = make_labels((5, 81))
        check_autocast(
            lambda student, teacher: self.loss(
                student, teacher, labels, weight=entropy_weight(student, teacher)
            ),
            dtype,
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weight": torch.ones(6, 1)}, r"weight .* 6 samples, got shape \(6, 1\)"),
            ({"weight": torch.ones(5)}, r"weight .* 6 samples, got shape \(5,\)"),
            ({"reduction": "sum"}, "reduction .* got 'sum'"),
        ],
    )
    def test_refuses(self, inputs, options, message):
        with pytest.raises(ValueError, match=message):
            self.loss(*inputs, **options)

import time
from statistics import median

import pytest
import torch
from torch.testing import assert_close

from eakd_det.benchmark.multi_level_terms import kl, masks, one_by_one
from eakd_det.losses import entropy_weight, multi_level_loss

from .contract import (
    HALVES,
    assert_matches,
    check_autocast,
    each_shape_and_dtype,
    make_logits,
    one_hot_logits,
)
from .intended_terms import exact_loss


def make_views(shape, dtype=torch.float64, scale=3.0):
    """Student weak and strong, which require a gradient, teacher weak and strong."""
    views = [make_logits(shape, seed, dtype, scale) for seed in range(4)]
    return [view.requires_grad_(i < 2) for i, view in enumerate(views)]


@pytest.fixture
def views():
    return make_views((6, 5))


@pytest.fixture
def weights():
    """Weights of both views, as options."""
    return {
        "weak_weight": torch.linspace(0, 2, 6, dtype=torch.float64),
        "strong_weight": torch.linspace(3, 1, 6, dtype=torch.float64),
    }


def gradients(loss, views):
    return torch.autograd.grad(loss, views[:2])


OPTIONS = [
    pytest.param(options, id="-".join(f"{key}={value}" for key, value in options.items()) or "none")
    for options in [
        {},
        {"temperature": 2.0},
        {"temperature": 3.0},
        {"temperature": 1.5, "standardize": True},
        {"as_intended": True},
        {"as_intended": True, "temperature": 6.0, "standardize": True},
    ]
]
each_option = pytest.mark.parametrize("options", OPTIONS)


@each_shape_and_dtype
@each_option
def test_matches_the_terms_one_by_one(shape, dtype, options):
    views = make_views(shape, dtype)
    exact_views = [view.detach().double().requires_grad_(i < 2) for i, view in enumerate(views)]
    generator = torch.Generator().manual_seed(7)
    weights = torch.rand(2, shape[0], generator=generator).unbind()
    options = dict(zip(["weak_weight", "strong_weight"], weights, strict=True)) | options
    loss = multi_level_loss(*views, **options)
    exact = exact_loss(*exact_views, **options)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_matches(loss.detach(), exact.detach())
    pairs = zip(gradients(loss, views), gradients(exact, exact_views), strict=True)
    for view, (gradient, exact_gradient) in zip(views, pairs, strict=False):
        assert gradient.dtype == view.dtype
        assert_matches(gradient, exact_gradient)


@each_option
def test_gradcheck(views, weights, options):
    def loss(student_weak, student_strong):
        return multi_level_loss(student_weak, student_strong, *views[2:], **weights, **options)

    assert torch.autograd.gradcheck(loss, views[:2])


@each_option
def test_equal_logits_give_zero(views, options):
    weak, strong = views[:2]
    loss = multi_level_loss(weak, strong, weak.detach(), strong.detach(), **options)
    assert loss == 0
    for gradient in gradients(loss, views):
        assert_close(gradient, torch.zeros_like(gradient), atol=1e-14, rtol=0)


@each_option
def test_is_positive_for_different_logits(views, options):
    assert multi_level_loss(*views, **options) > 0


@each_option
def test_weights_of_ones_change_nothing(views, options):
    ones = torch.ones(6, dtype=torch.float64)
    weighted = multi_level_loss(*views, weak_weight=ones, strong_weight=ones, **options)
    plain = multi_level_loss(*views, **options)
    assert torch.equal(weighted, plain)
    for pair in zip(gradients(weighted, views), gradients(plain, views), strict=True):
        assert torch.equal(*pair)


@each_option
def test_shifting_logits_changes_nothing(views, options):
    shifted = [view + make_logits((6, 1), seed=i + 4, scale=50) for i, view in enumerate(views)]
    assert_close(multi_level_loss(*shifted, **options), multi_level_loss(*views, **options))


@each_option
def test_permuting_the_batch_changes_nothing(views, weights, options):
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    permuted = multi_level_loss(
        *(view[order] for view in views),
        **{name: weight[order] for name, weight in weights.items()},
        **options,
    )
    assert_close(permuted, multi_level_loss(*views, **weights, **options))


def test_every_option_changes_the_loss(views, weights):
    plain = multi_level_loss(*views)
    single = [{name: weight} for name, weight in weights.items()]
    for options in [{"temperature": 3.5}, {"standardize": True}, {"as_intended": True}, *single]:
        assert multi_level_loss(*views, **options) != plain


def test_temperature_is_4_unless_given(views):
    assert torch.equal(multi_level_loss(*views), multi_level_loss(*views, temperature=4))


def test_released_code_sees_strong_views_at_three_temperatures_and_one_level():
    """With equal weak views only the strong instance level is left."""
    views = make_views((6, 5))
    weak = views[0].detach()
    loss = multi_level_loss(weak, views[1], weak, views[3])
    strong = sum(kl(views[1], views[3], tau).mean() for tau in (4.0, 3.0, 5.0))
    assert_close(loss, strong)


def test_masks_of_the_released_code_are_factors(views):
    """It counts images of which the teacher is sure as much as the others."""
    strong = views[1].detach()
    loss = multi_level_loss(views[0], strong, views[2], strong)
    (gradient,) = torch.autograd.grad(loss, views[0])
    assert (gradient.abs().sum(dim=1) > 0).all()


def test_intended_masks_select(views):
    """The weak view's instance level has no images of which the teacher is sure."""
    images, _ = masks(views[2])
    for factors, is_noticed in [((7.0, 1.0), True), ((1.0, 7.0), False)]:
        weight = torch.where(images, *factors).double()
        weighted = multi_level_loss(*views, weak_weight=weight, as_intended=True)
        assert (weighted != multi_level_loss(*views, as_intended=True)) == is_noticed


def test_teacher_and_weights_get_no_gradient(views, weights):
    for tensor in (*views[2:], *weights.values()):
        tensor.requires_grad_()
    multi_level_loss(*views, **weights).backward()
    assert views[0].grad.any()
    assert views[1].grad.any()
    assert all(tensor.grad is None for tensor in (*views[2:], *weights.values()))


def test_gradient_is_scaled_by_what_comes_back(views):
    gradient, _ = gradients(multi_level_loss(*views), views)
    scaled, _ = gradients(-2.5 * multi_level_loss(*views), views)
    assert_close(scaled, -2.5 * gradient)


@each_option
@pytest.mark.parametrize("is_weighted", [False, True])
def test_no_images_give_a_zero_in_the_graph(options, is_weighted):
    views = make_views((0, 5))
    weight = torch.ones(0) if is_weighted else None
    loss = multi_level_loss(*views, weak_weight=weight, strong_weight=weight, **options)
    assert loss.shape == ()
    assert loss == 0
    loss.backward()
    assert views[0].grad.shape == views[1].grad.shape == (0, 5)


@pytest.mark.parametrize("as_intended", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_saturated_logits(dtype, as_intended):
    student = torch.cat([one_hot_logits(i, 81, dtype) for i in (5, 3)])
    teacher = torch.cat([one_hot_logits(i, 81, dtype) for i in (3, 3)])
    views = [student.clone().requires_grad_(), student.clone().requires_grad_(), teacher, teacher]
    exact_views = [view.detach().double().requires_grad_(i < 2) for i, view in enumerate(views)]
    loss = multi_level_loss(*views, as_intended=as_intended)
    exact = exact_loss(*exact_views, as_intended=as_intended)
    assert_matches(loss.detach(), exact.detach())
    pairs = zip(gradients(loss, views), gradients(exact, exact_views), strict=True)
    for gradient, exact_gradient in pairs:
        assert_matches(gradient, exact_gradient)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("as_intended", [False, True])
def test_autocast(dtype, as_intended):
    def loss(student, teacher):
        weight = entropy_weight(student, teacher)
        views = student, student.flip(0), teacher, teacher.flip(0)
        return multi_level_loss(*views, weak_weight=weight, as_intended=as_intended)

    check_autocast(loss, dtype)


def test_may_be_called_in_inference_mode_first(views):
    with torch.inference_mode():
        inside = multi_level_loss(*views, temperature=7.5)
    loss = multi_level_loss(*views, temperature=7.5)
    loss.backward()
    assert torch.equal(loss, inside)


@pytest.mark.parametrize("name", ["weak_weight", "strong_weight"])
def test_refuses_weights_of_another_shape(views, name):
    with pytest.raises(ValueError, match=r"weight .* 6 samples, got shape \(6, 1\)"):
        multi_level_loss(*views, **{name: torch.ones(6, 1)})


def test_refuses_to_standardize_one_class():
    with pytest.raises(ValueError, match="standardize needs at least 2 classes"):
        multi_level_loss(*make_views((3, 1)), standardize=True)


@pytest.mark.slow
def test_is_faster_than_the_terms_one_by_one():
    """On one thread: with more of them the ratio is higher, and noisier."""
    views = make_views((64, 100), torch.float32)
    seconds = {multi_level_loss: [], one_by_one: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(200):
            for loss, times in seconds.items():
                start = time.perf_counter()
                loss(*views).backward()
                times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    assert median(seconds[one_by_one]) / median(seconds[multi_level_loss]) > 3

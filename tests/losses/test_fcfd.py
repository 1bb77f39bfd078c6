import pytest
import torch
from torch.testing import assert_close

from eakd_det.losses import fcfd_loss, feature_rampup, kd_loss
from eakd_det.losses.fcfd_paths import PathOutputs

from .contract import HALVES, softmax
from .staged import make_outputs


def slow_parts(outputs, n, temperature):
    """Unweighted L2 and the KL of each path, of image n alone."""
    l2 = 0.0
    for k, target in enumerate(outputs.teacher_maps):
        for x in outputs.bridged_maps[k]:
            a, b = x[n], target[n].detach()
            l2 = l2 + ((a - b) ** 2).mean()
            if k == len(outputs.teacher_maps) - 1:
                pooled = [y.clamp(min=0).mean(dim=2).mean(dim=1) for y in (a, b)]
                l2 = l2 + ((pooled[0] - pooled[1]) ** 2).mean()
    p = softmax(outputs.teacher_logits[n].detach(), temperature)
    logits = [outputs.student_logits, *outputs.mixed_logits]
    qs = [softmax(x[n], temperature) for x in logits]
    return l2, [temperature**2 * (p * (p / q).log()).sum() for q in qs]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("images", [1, 3])
def test_matches_the_slow_formula(images, weighted):
    outputs, leaves, _ = make_outputs(images)
    weight = torch.arange(1.0, images + 1, dtype=torch.float64) if weighted else None
    losses = fcfd_loss(outputs, temperature=2.5, feature_weight=0.3, mix_weight=0.2, weight=weight)
    exact = {"l2": 0.0, "kl": 0.0}
    for n in range(images):
        l2, (student, *mixed) = slow_parts(outputs, n, 2.5)
        factor = (weight[n] if weighted else 1) / images
        exact["l2"] += 0.3 * factor * l2
        exact["kl"] += factor * (student + 0.2 * sum(mixed))
    assert_close(losses, exact)
    gradients = torch.autograd.grad(sum(losses.values()), leaves)
    assert_close(gradients, torch.autograd.grad(sum(exact.values()), leaves))


def test_gradcheck():
    outputs, leaves, _ = make_outputs(2)
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *_: tuple(fcfd_loss(outputs, weight=weight).values()), leaves
    )


def test_without_mixed_paths_the_kl_is_that_of_kd():
    outputs, _, _ = make_outputs()
    outputs.mixed_logits = []
    kd = kd_loss(outputs.student_logits, outputs.teacher_logits)
    assert torch.equal(fcfd_loss(outputs)["kl"], kd)


def test_equal_maps_and_logits_give_zero():
    outputs, _, _ = make_outputs()
    outputs.student_logits = outputs.teacher_logits
    outputs.mixed_logits = [outputs.teacher_logits.clone()]
    outputs.bridged_maps = [[x, x.clone()] for x in outputs.teacher_maps]
    losses = fcfd_loss(outputs)
    assert losses["l2"] == 0
    assert losses["kl"] == 0


def test_weight_of_ones_changes_nothing():
    outputs, leaves, _ = make_outputs()
    results = []
    for weight in (None, torch.ones(3, dtype=torch.float64)):
        losses = fcfd_loss(outputs, weight=weight)
        results.append([*losses.values(), *torch.autograd.grad(sum(losses.values()), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_weight_leaves_out_images():
    outputs, leaves, _ = make_outputs()
    weight = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    sum(fcfd_loss(outputs, weight=weight).values()).backward()
    assert all(x.grad[1].any() and not x.grad[[0, 2]].any() for x in leaves)
    assert weight.grad is None


def test_teacher_gets_no_gradient():
    outputs, leaves, teachers = make_outputs()
    sum(fcfd_loss(outputs).values()).backward()
    assert all(x.grad.any() for x in leaves)
    assert all(x.grad is None for x in teachers)


@pytest.mark.parametrize(
    ("option", "part"), [("temperature", "kl"), ("mix_weight", "kl"), ("feature_weight", "l2")]
)
def test_each_option_changes_its_part(option, part):
    outputs, _, _ = make_outputs()
    losses, changed = fcfd_loss(outputs), fcfd_loss(outputs, **{option: 2.5})
    assert {name for name in losses if losses[name] != changed[name]} == {part}


def test_rampup():
    assert [feature_rampup(epoch, feature_warmup=4) for epoch in (1, 2, 4, 9)] == [0.25, 0.5, 1, 1]
    assert feature_rampup(1, feature_warmup=0) == 1


@pytest.mark.parametrize("weight", [None, torch.ones(0)])
def test_no_images_give_zeros_in_the_graph(weight):
    outputs, leaves, _ = make_outputs(0)
    losses = fcfd_loss(outputs, weight=weight)
    assert losses == {"l2": 0, "kl": 0}
    sum(losses.values()).backward()
    assert all(x.grad is not None for x in leaves)


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_computed_in_float32(dtype):
    outputs, _, _ = make_outputs(dtype=dtype)
    outputs.bridged_maps[-1][0] = outputs.bridged_maps[-1][0] * 0 + 600.0  # its square overflows
    losses = fcfd_loss(outputs)
    wide = PathOutputs(*(_float(x) for x in vars(outputs).values()))
    assert all(x.dtype == torch.float32 for x in losses.values())
    assert_close(losses, fcfd_loss(wide))


def _float(x):
    return [_float(y) for y in x] if isinstance(x, list) else x.float()


def test_refuses_what_does_not_match():
    outputs, _, _ = make_outputs()
    with pytest.raises(ValueError, match=r"weight .* 3 samples, got shape \(2,\)"):
        fcfd_loss(outputs, weight=torch.ones(2))
    outputs.teacher_maps[1] = outputs.teacher_maps[1][..., :1]
    with pytest.raises(ValueError, match=r"differ: \(3, 3, 2, 2\), \(3, 3, 2, 1\)"):
        fcfd_loss(outputs)

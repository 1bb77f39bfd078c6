"""Every loss, and its gradients, equals that of the CPU in float32."""

import copy

import pytest
import torch
from torch.nn import functional as F

import eakd_det.losses
from eakd_det import losses
from tests.losses.contract import make_labels, make_logits
from tests.losses.maps import make_maps
from tests.losses.staged import make_images, make_pair
from tests.losses.test_chunked import make_heads, per_token

TOLERANCE = 1e-4  # norm of the difference, relative to the norm on the CPU
NO_TENSORS = {"draw_paths", "curriculum_strength", "feature_rampup", "shared_softmax"}
RANDOM = {"draw_masks"}
PARTS = {"LanguageHead", "PathOutputs", "FeatureBridges", "run_paths", "combine_entropies"}


def _logits(*names, rows=64, classes=81):
    shape = (rows, classes)
    return {n: make_logits(shape, seed, torch.float32) for seed, n in enumerate(names, 1)}


def _of_logits(function, *, labels=False, weight=True, teacher=True):
    """A case of a loss on (N, C) logits; the student's get a gradient."""
    constants = _logits("student", "teacher") if teacher else _logits("student")
    student = constants.pop("student")
    constants |= {"labels": make_labels(student.shape)} if labels else {}
    options = {"weight": torch.linspace(0, 2, len(student))} if weight else {}
    return (
        [student],
        (list(constants.values()), options),
        lambda leaves, others: function(*leaves, *others[0], **others[1]),
    )


def _multi_level():
    leaves, others = _logits("a", "b"), list(_logits("c", "d", "e", "f").values())[2:]
    function = losses.multi_level_loss
    return list(leaves.values()), others, lambda x, others: function(*x, *others)


def _of_maps(function):
    """A case of a loss on maps, those of the first argument with a gradient."""
    student, teacher = (make_maps(3, [4] * 5, seed, dtype=torch.float32) for seed in (1, 2))
    weight = torch.tensor([0.5, 2.0, 1.0])
    return student, [teacher, weight], lambda x, others: function(x, others[0], weight=others[1])


def _generation():
    torch.manual_seed(0)
    module = losses.MaskedGeneration([3, 4], [5, 4])
    maps = make_maps(3, [3, 4], 1, [(8, 10), (4, 5)], dtype=torch.float32)
    shapes = [(8, 10), (2, 3)]
    masks = losses.draw_masks(make_maps(3, [5, 4], 2, shapes))

    def generated(x, module):
        on_device = [mask.to(x[0].device) for mask in masks]
        return torch.cat([y.flatten(1) for y in module(x, shapes, on_device)], dim=1)

    return maps, module, generated


def _fgd():
    torch.manual_seed(0)
    relation = losses.GlobalRelation([3, 4], [5, 4])
    for name, parameter in relation.named_parameters():
        if "channel_add_conv.3" in name:  # else zero
            torch.nn.init.normal_(parameter)
    sizes = [(8, 10), (4, 5)]
    maps = make_maps(3, [3, 4], 1, sizes, dtype=torch.float32)
    teacher = make_maps(3, [5, 4], 2, sizes, dtype=torch.float32)
    boxes = [torch.tensor([[0.0, 0, 20, 20], [4, 4, 9, 12]]), torch.zeros(0, 4)]
    boxes.append(torch.tensor([[10.0, 2, 39, 30]]))

    def loss(x, relation):
        targets, on_device = (_to(tensors, x[0].device) for tensors in (teacher, boxes))
        adapted, contexts = relation(x, targets)
        return losses.fgd_loss(adapted, targets, contexts, on_device, [(32, 40)] * 3, alpha=0.1)

    return maps, relation, loss


def _fusion():
    torch.manual_seed(0)
    fusion = losses.ReviewFusion([3, 4, 6], [5, 7, 9])
    maps = make_maps(3, [3, 4, 6], 1, [(8, 10), (4, 5), (2, 3)], dtype=torch.float32)
    return maps, fusion, lambda x, fusion: torch.cat([y.flatten(1) for y in fusion(x)], dim=1)


def _pad():
    torch.manual_seed(0)
    head, (student,) = losses.PrimeAwareHead(81, 16), _logits("student").values()
    teacher = make_logits((64, 16), 2, torch.float32)

    def loss(leaves, others):
        head, teacher = others
        mapped, log_variance = head(*leaves)
        return losses.pad_loss(mapped, teacher, log_variance)

    return [student], (head, teacher), loss


def _curriculum():
    student, teacher = _logits("student", "teacher").values()

    def loss(leaves, others):
        temperature, teacher = others
        return losses.kd_loss(*leaves, teacher, temperature=temperature(-0.5))

    return [student], (losses.CurriculumTemperature(), teacher), loss


def _fcfd():
    networks = make_pair(dtype=torch.float32)
    paths = losses.draw_paths(networks[0].num_stages, seed=1)

    def loss(leaves, networks):
        outputs = losses.run_paths(*networks, *leaves, paths)
        weight = losses.entropy_weight(outputs.student_logits, outputs.teacher_logits)
        return torch.stack([*losses.fcfd_loss(outputs, weight=weight).values()])

    return [make_images(dtype=torch.float32)], networks, loss


def _divergence(function):
    shape = (2, 11, 37)
    student, teacher = (make_logits(shape, seed, torch.float32) for seed in (1, 2))
    labels = make_labels((22, 37)).view(2, 11)
    labels[:, :3] = -100

    def loss(leaves, others):
        teacher, labels = others
        weight = losses.entropy_weight(*leaves, teacher)
        return function(*leaves, teacher, labels, weight=weight)

    return [student], (teacher, labels), loss


def _chunked():
    student, teacher, labels = make_heads(shape=(3, 70))
    token_loss = per_token(losses.skewed_forward_kl, is_weighted=True)

    def loss(leaves, others):
        teacher, labels = others
        head = losses.LanguageHead(*leaves)
        return losses.chunked_loss(token_loss, head, teacher, labels, chunk_size=16)

    return [x.detach() for x in student], (teacher, labels), loss


def _boxes():
    student, teacher, target = (make_logits((64, 4), seed, torch.float32) for seed in (1, 2, 3))
    weight = torch.linspace(0, 2, 64)

    def loss(leaves, others):
        teacher, target, weight = others
        return losses.bounded_box_loss(*leaves, teacher, target, weight=weight)

    return [student], [teacher, target, weight], loss


def _fcfd_heads():
    torch.manual_seed(0)
    bridges = losses.HeadBridges([3, 4], [5, 4], [0, 1])
    sizes = [(8, 10), (4, 5)]
    maps = make_maps(3, [3, 4], 1, sizes, dtype=torch.float32)
    targets = make_maps(3, [5, 4], 2, sizes, dtype=torch.float32)

    def loss(leaves, bridges):
        of_teacher = _to(targets, leaves[0].device)
        bridged, back = bridges.to_teacher(leaves), bridges.to_student(of_teacher)
        flat = [x[1].flatten(1) for x in (of_teacher, bridged, back)]  # in place of box heads
        teacher, *paths = ((x[:, :11], x[:, 11:]) for x in flat)
        values = losses.fcfd_heads_loss(bridged, of_teacher, paths, teacher)
        return torch.stack([*values.values()])

    return maps, bridges, loss


DIVERGENCES = ("forward_kl", "reverse_kl", "skewed_forward_kl", "skewed_reverse_kl")
DIVERGENCES += ("symmetric_kl", "jensen_shannon")
ALONE = {"weight": False, "teacher": False}
CASES = {
    "kd_loss": lambda: _of_logits(losses.kd_loss),
    "dkd_loss": lambda: _of_logits(losses.dkd_loss, labels=True),
    "ttm_loss": lambda: _of_logits(losses.ttm_loss),
    "wttm_loss": lambda: _of_logits(losses.wttm_loss),
    "dist_loss": lambda: _of_logits(losses.dist_loss),
    "bernoulli_dist_loss": lambda: _of_logits(losses.bernoulli_dist_loss),
    "nkd_loss": lambda: _of_logits(losses.nkd_loss, labels=True),
    "bounded_box_loss": _boxes,
    "fcfd_heads_loss": _fcfd_heads,
    "HeadBridges": _fcfd_heads,
    "bernoulli_kd_loss": lambda: _of_logits(losses.bernoulli_kd_loss),
    "bernoulli_entropy": lambda: _of_logits(losses.bernoulli_entropy, **ALONE),
    "entropy": lambda: _of_logits(losses.entropy, **ALONE),
    "standardize": lambda: _of_logits(losses.standardize, **ALONE),
    "entropy_weight": lambda: _of_logits(losses.entropy_weight, weight=False),
    "multi_level_loss": _multi_level,
    "hcl_loss": lambda: _of_maps(losses.hcl_loss),
    "cwd_loss": lambda: _of_maps(losses.cwd_loss),
    "pkd_loss": lambda: _of_maps(losses.pkd_loss),
    "mgd_loss": lambda: _of_maps(losses.mgd_loss),
    "fgd_loss": _fgd,
    "GlobalRelation": _fgd,
    "MaskedGeneration": _generation,
    "MapAdapter": _generation,
    "ReviewFusion": _fusion,
    "pad_loss": _pad,
    "PrimeAwareHead": _pad,
    "CurriculumTemperature": _curriculum,
    "fcfd_loss": _fcfd,
    "chunked_loss": _chunked,
    **{n: lambda n=n: _divergence(vars(eakd_det.losses)[n]) for n in DIVERGENCES},
}


def _to(x, device):
    """Copy tensors, modules and containers of them to a device."""
    if isinstance(x, torch.Tensor | torch.nn.Module):
        return copy.deepcopy(x).to(device)
    if isinstance(x, dict):
        return {name: _to(value, device) for name, value in x.items()}
    if isinstance(x, losses.LanguageHead):
        return losses.LanguageHead(*_to(list(x), device))
    return None if x is None else [_to(value, device) for value in x]


def _value_and_gradients(case, device):
    leaves, others, function = case
    leaves = [_to(x.detach(), device).requires_grad_() for x in leaves]
    others = _to(others, device)
    value = function(leaves, others)
    values = [value.detach()]
    if value.requires_grad:
        others = others if isinstance(others, list) else [others]
        modules = [x for x in others if isinstance(x, torch.nn.Module)]
        weights = [p for m in modules for p in m.parameters() if p.requires_grad]
        direction = torch.linspace(-1, 1, value.numel(), device=device).view_as(value)
        direction = direction if value.dim() else torch.ones_like(value)
        inputs = [*leaves, *weights]
        values += torch.autograd.grad((value * direction).sum(), inputs, materialize_grads=True)
    return [x.cpu() for x in values]


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients_are_those_of_the_cpu(name, device, full_float32):
    case = CASES[name]()
    expected, got = (_value_and_gradients(case, d) for d in ("cpu", device))
    whole = torch.stack([x.norm() for x in expected[1:] or expected]).norm()
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.isfinite().all()
        assert (ours - theirs).norm() <= TOLERANCE * theirs.norm() + 1e-6 * whole


def test_every_loss_is_tested():
    assert CASES.keys() | NO_TENSORS | RANDOM | PARTS == set(eakd_det.losses.__all__)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["kd_loss", "dkd_loss", "wttm_loss", "bernoulli_kd_loss"])
def test_half_precisions_are_computed_in_float32(name, dtype, device, full_float32):
    """Large logits stay finite, and the value is that of the same logits in float32."""
    (student,), others, function = CASES[name]()
    student = (40 * student).to(dtype)
    values = []
    for x in (student, student.float()):
        leaf = x.to(device).requires_grad_()
        value = function([leaf], _to(others, device))
        (gradient,) = torch.autograd.grad(value, leaf)
        assert value.dtype == torch.float32 and gradient.isfinite().all()
        values.append(value.item())
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_shared_softmax_gives_the_same(device):
    (student, teacher) = (x.to(device) for x in _logits("student", "teacher").values())
    student.requires_grad_()

    def both():
        weight = losses.entropy_weight(student, teacher, temperature=4.0)
        value = losses.kd_loss(student, teacher, weight=weight)
        return value, *torch.autograd.grad(value, student)

    with losses.shared_softmax():
        shared = both()
    for ours, theirs in zip(shared, both(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_chunks_equal_the_whole(device, full_float32):
    student, teacher, labels = make_heads(shape=(3, 70))
    student = [x.detach().to(device).requires_grad_() for x in student]
    teacher, labels = _to(teacher, device), labels.to(device)
    token_loss = per_token(losses.skewed_forward_kl, is_weighted=False)
    head = losses.LanguageHead(*student)
    chunked = losses.chunked_loss(token_loss, head, teacher, labels, chunk_size=16)
    logits = F.linear(*student), F.linear(*teacher)
    whole = losses.skewed_forward_kl(*logits, labels)
    torch.testing.assert_close(chunked, whole)
    both = (torch.autograd.grad(x, student) for x in (chunked, whole))
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers
from detectron2.structures import Boxes
from torch import nn
from torch.testing import assert_close

from eakd_det.losses import HeadBridges, fcfd_heads_loss, kd_loss
from eakd_det.losses.fcfd_heads import appearance_losses, prediction_losses
from tests.golden import PRECISIONS, golden, golden_case

from .contract import HALVES, make_logits
from .test_reviewkd import make_maps

LEVELS = ["p2", "p3", "p4", "p5", "p6"]
PATHS = ["s", "st", "ts"]


def _predictions(seed, rois=6, classes=3):
    return make_logits((rois, classes + 1), seed), make_logits((rois, 4 * classes), seed + 50)


def test_predictions_match_the_slow_formula():
    paths, teacher = [_predictions(seed) for seed in (1, 2)], _predictions(3)
    for x in paths[0]:
        x.requires_grad_()
    weight = torch.linspace(0.5, 2, 6, dtype=torch.float64)
    kd, l2 = prediction_losses(paths, teacher, temperature=2.0, weight=weight)
    for i, (logits, deltas) in enumerate(paths):
        assert_close(kd[i], kd_loss(logits, teacher[0], temperature=2.0, weight=weight))
        each = [sum((deltas[n] - teacher[1][n]) ** 2) / deltas.shape[1] for n in range(6)]
        exact = sum(w * x for w, x in zip(weight, each, strict=True)) / 6
        assert_close(l2[i], exact)
    gradients = torch.autograd.grad(l2[0], paths[0][1])
    expected = 2 * weight[:, None] * (paths[0][1] - teacher[1]) / 12 / 6
    assert_close(gradients[0], expected)


def test_gradcheck():
    logits, deltas = (x.requires_grad_() for x in _predictions(1, rois=3))
    teacher = _predictions(2, rois=3)
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, b: prediction_losses([(a, b)], teacher, weight=weight), (logits, deltas)
    )
    maps = [x.requires_grad_() for x in make_maps(2, [2, 2], 1, [(3, 4), (1, 2)])]
    targets = make_maps(2, [2, 2], 2, [(3, 4), (1, 2)])
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *x: appearance_losses(x, targets, weight=weight), maps)


def test_appearance_is_the_weighted_mean_of_single_images():
    maps, targets = make_maps(3, [4] * 5, 1), make_maps(3, [4] * 5, 2)
    weight = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)
    images = ([[x[n, None] for x in side] for side in (maps, targets)] for n in range(3))
    alone = [appearance_losses(*image) for image in images]
    expected = sum(w * x for w, x in zip(weight, alone, strict=True)) / 3
    assert_close(appearance_losses(maps, targets, weight=weight), expected)
    for level, (x, target) in enumerate(zip(maps, targets, strict=True)):
        assert_close(alone[0][level], ((x[0] - target[0]) ** 2).mean())
    ones = torch.ones(3, dtype=torch.float64)
    plain = appearance_losses(maps, targets)
    assert torch.equal(appearance_losses(maps, targets, weight=ones), plain)


def test_teacher_gets_no_gradient():
    path, teacher = _predictions(1), _predictions(2)
    maps, targets = make_maps(2, [3], 1, [(2, 2)]), make_maps(2, [3], 2, [(2, 2)])
    for x in (*path, *teacher, *maps, *targets):
        x.requires_grad_()
    total = sum(x.sum() for x in prediction_losses([path], teacher))
    (total + appearance_losses(maps, targets).sum()).backward()
    assert all(x.grad.any() for x in (*path, *maps))
    assert all(x.grad is None for x in (*teacher, *targets))


def test_no_roi_and_no_image_give_zeros_in_the_graph():
    path, teacher = _predictions(1, rois=0), _predictions(2, rois=0)
    for x in path:
        x.requires_grad_()
    kd, l2 = prediction_losses([path], teacher)
    assert kd == 0 and l2 == 0
    (kd + l2).sum().backward()
    [x] = make_maps(0, [3], 1, [(2, 2)])
    loss = appearance_losses([x.requires_grad_()], make_maps(0, [3], 2, [(2, 2)]))
    assert loss == 0
    loss.sum().backward()


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_computed_in_float32(dtype):
    path, teacher = ([x.to(dtype) for x in _predictions(seed)] for seed in (1, 2))
    kd, l2 = prediction_losses([path], teacher)
    wide = [[x.float() for x in pair] for pair in (path, teacher)]
    assert_close((kd, l2), prediction_losses([wide[0]], wide[1]))
    maps, targets = (make_maps(2, [3] * 5, seed, dtype=dtype) for seed in (1, 2))
    assert appearance_losses(maps, targets).dtype == torch.float32


def test_bridges_of_any_widths():
    torch.manual_seed(0)
    bridges = HeadBridges([3, 4, 5], [8, 7, 6], [0, 1])
    sizes = [(8, 10), (4, 5), (1, 1)]
    student = make_maps(1, [3, 4, 5], 1, sizes, torch.float32)
    teacher = make_maps(1, [8, 7, 6], 2, sizes, torch.bfloat16)
    there, back = bridges.to_teacher(student), bridges.to_student(teacher)
    assert [tuple(x.shape) for x in there] == [(1, 8, 8, 10), (1, 7, 4, 5), (1, 6, 1, 1)]
    assert [tuple(x.shape) for x in back] == [(1, 3, 8, 10), (1, 4, 4, 5)]
    (appearance_losses(there, teacher).sum() + sum(x.sum() for x in back)).backward()
    assert all(p.grad is not None for p in bridges.parameters())
    with pytest.raises(ValueError, match=r"differ: \(1, 8, 8, 10\), \(1, 7, 4, 5\)"):
        appearance_losses([there[0]], [teacher[1]])


# Golden figures.


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ["pred_coco", "pred_t4", "pred_one"])
def test_released_predictions(name, dtype):
    case = golden_case("features/fcfd_det", name)
    names = ("student", "student_deltas", "teacher", "teacher_deltas")
    logits, deltas, *teacher = (case[key].to(dtype) for key in names)
    options = {"temperature": case["temperature"].item()}
    path = logits.requires_grad_(), deltas.requires_grad_()
    tolerance = {"rtol": PRECISIONS[dtype], "atol": PRECISIONS[dtype]}
    for loss, x, key in zip(
        prediction_losses([path], teacher, **options), path, ("kd", "l2"), strict=True
    ):
        assert_close(loss[0].double(), case[key], **tolerance)
        (gradient,) = torch.autograd.grad(loss, x)
        assert_close(gradient.double(), case[f"{key}_grad"], **tolerance)
    for n in range(len(logits)):
        rows = [[x[n, None] for x in side] for side in (path, teacher)]
        alone = prediction_losses(rows[:1], rows[1], **options)
        for loss, key in zip(alone, ("kd", "l2"), strict=True):
            assert_close(loss[0].double(), case[f"{key}_per_roi"][n], **tolerance)


class Head(nn.Module):
    """Detectron2's box head with the weights of a golden case."""

    def __init__(self, case, side, dtype):
        super().__init__()
        self.pooler = ROIPooler(
            int(case["pool"]),
            [1 / 4, 1 / 8, 1 / 16, 1 / 32],
            0,
            "ROIAlignV2",
            canonical_box_size=int(case["canonical_box"]),
        )
        biases = (f"{side}_head.box_head.fc{i}.bias" for i in (1, 2))
        widths = [len(case[key]) for key in biases if key in case]
        size = ShapeSpec(channels=6, height=int(case["pool"]), width=int(case["pool"]))
        self.box_head = FastRCNNConvFCHead(size, conv_dims=[], fc_dims=widths)
        self.box_predictor = FastRCNNOutputLayers(
            ShapeSpec(channels=widths[-1]),
            box2box_transform=Box2BoxTransform((10.0, 10.0, 5.0, 5.0)),
            num_classes=int(case["classes"]),
        )
        prefix = f"{side}_head."
        state = {k.removeprefix(prefix): x for k, x in case.items() if k.startswith(prefix)}
        self.to(dtype).load_state_dict(state)

    def forward(self, maps, boxes):
        return self.box_predictor(self.box_head(self.pooler(maps, boxes)))


class Whole:
    """A step of the released forward pass."""

    def __init__(self, name, dtype):
        prefix = f"{name}."
        arrays = golden("features/fcfd_det")
        self.case = {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}
        case, self.dtype = self.case, dtype
        self.student, teacher = (
            [case[f"{side}_{level}"].to(dtype) for level in LEVELS]
            for side in ("student", "teacher")
        )
        for x in self.student:
            x.requires_grad_()
        boxes = [Boxes(case[f"boxes{n}"].to(dtype)) for n in range(len(teacher[0]))]
        self.heads = {side: Head(case, side, dtype) for side in ("student", "teacher")}
        self.heads["teacher"].requires_grad_(False)
        self.bridges = HeadBridges([6] * 5, [6] * 5, range(4)).to(dtype)
        # The release also has a bridge to the student on p6, and never uses it.
        state = {k: x for k, x in case.items() if k.startswith("bridges.") and ".t2s.4." not in k}
        missing = self.bridges.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys
        assert all("running" in k or "num_batches" in k for k in missing.missing_keys)
        self.bridged = self.bridges.to_teacher(self.student)
        self.target = self.heads["teacher"](teacher[:4], boxes)
        self.paths = {
            "s": self.heads["student"](self.student[:4], boxes),
            "st": self.heads["teacher"](self.bridged[:4], boxes),
            "ts": self.heads["student"](self.bridges.to_student(teacher), boxes),
        }
        self.losses = self._losses(teacher)
        names = ("app_weight", "kd_weight", "l2_weight", "temperature")
        options = {name: case[name].item() for name in names}
        paths = list(self.paths.values())
        self.sums = fcfd_heads_loss(self.bridged, teacher, paths, self.target, **options)

    def _losses(self, teacher):
        self.app = appearance_losses(self.bridged, teacher)
        temperature = self.case["temperature"].item()
        paths = list(self.paths.values())
        kd, l2 = prediction_losses(paths, self.target, temperature=temperature)
        factors = {key: self.case[f"{key}_weight"].item() for key in ("app", "kd", "l2")}
        losses = {"loss_app": factors["app"] * self.app.sum()}
        for i, path in enumerate(PATHS):
            losses[f"loss_roikd_{path}"] = factors["kd"] * kd[i]
            losses[f"loss_roil2_{path}"] = factors["l2"] * l2[i]
        return losses

    def compare(self, name, actual):
        assert actual.dtype == self.dtype
        tolerance = PRECISIONS[self.dtype]
        assert_close(actual.double(), self.case[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("name", ["whole", "whole_n1"])
def test_released_step(name, dtype):
    step = Whole(name, dtype)
    step.compare("app_by_level", step.app)
    for level, x in zip(LEVELS, step.bridged, strict=True):
        step.compare(f"bridged_s2t_{level}", x)
    for path, (logits, deltas) in {**step.paths, "teacher": step.target}.items():
        keys = [f"{x}_{path}" for x in ("logits", "deltas")]
        if path == "teacher":
            keys = ["teacher_logits", "teacher_deltas"]
        step.compare(keys[0], logits)
        step.compare(keys[1], deltas)
    for key, loss in step.losses.items():
        step.compare(key, loss)
        (gradient,) = torch.autograd.grad(loss, step.student[:1], retain_graph=True)
        if f"{key}.grad_student_p2" in step.case:
            step.compare(f"{key}.grad_student_p2", gradient)
        else:  # from the teacher's maps into the student's head
            assert not gradient.any()
    total = sum(step.losses.values())
    step.compare("total", total)
    step.compare("total", sum(step.sums.values()))
    total.backward()
    for level, x in zip(LEVELS, step.student, strict=True):
        step.compare(f"grad_student_{level}", x.grad)
    for key in [k for k in step.case if k.startswith("grad.")]:
        name = key.removeprefix("grad.")
        owner = step.bridges
        if name.startswith("student_head."):
            owner, name = step.heads["student"], name.removeprefix("student_head.")
        step.compare(key, owner.get_parameter(name).grad)
    for key in [k for k in step.case if k.startswith("bridges_after.")]:
        buffer = step.bridges.bridges.get_buffer(key.removeprefix("bridges_after."))
        step.compare(key, buffer)
    assert all(p.grad is not None for p in step.bridges.parameters())
    assert all(p.grad is None for p in step.heads["teacher"].parameters())

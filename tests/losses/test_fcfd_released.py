"""FCFD beside the figures of its released code."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from classification.models.resnet import cifar_resnet
from classification.models.shufflenet import ShuffleNetV1
from eakd_det.losses import (
    FeatureBridges,
    entropy,
    entropy_weight,
    fcfd_loss,
    feature_rampup,
    kd_loss,
    run_paths,
)
from eakd_det.losses.fcfd import feature_losses
from eakd_det.losses.fcfd_paths import MixedPath, PathOutputs
from tests.golden import PRECISIONS, golden

CASES = ["resnet.s2t", "resnet.both", "resnet.all", "hetero.s2t_t2s"]
INPUTS = {"paths", "path_names", "epoch", "T", "weight_l2", "mix_weight", "l2_warmup", "t", "H_ub"}
SLIP = "er_fcfd."  # its pooled error has the mean entropy for weight; er_fcfd_intended is compared


class Case:
    """The networks of a case, its figures, and which of these have been compared."""

    def __init__(self, name, dtype):
        group, _, _ = name.partition(".")
        arrays = golden("fcfd")
        self.dtype = dtype
        self.figures = _below(f"{name}.", arrays)
        self.compared = set()
        of_group = {
            k: a.to(dtype) if a.is_floating_point() else a
            for k, a in _below(f"{group}.", arrays).items()
        }
        self.images, self.labels = of_group["images"], of_group["target"]
        if group == "resnet":
            depth, self.student = 14, cifar_resnet(10, depth=8, widths=(3, 4, 5, 6))
        else:
            self.student = ShuffleNetV1(10, channels=(24, 28, 32, 36), blocks=(1, 1, 1), groups=1)
            depth = 8
        self.teacher = cifar_resnet(10, depth=depth, widths=(4, 5, 6, 8)).requires_grad_(False)
        self.bridges = FeatureBridges(self.student, self.teacher, self.images.float())
        for module, prefix in (
            (self.teacher, "models.0."),
            (self.student, "models.1."),
            (self.bridges.bridges, "bridges."),
        ):
            missing, unexpected = module.to(dtype).load_state_dict(
                _below(prefix, of_group), strict=False
            )
            assert not unexpected
            assert all(key.endswith("num_batches_tracked") for key in missing)
        self.rows = [tuple(row) for row in self.figures["paths"].tolist()]

    def run(self):
        paths = [MixedPath(row.count(row[0]) - 1, row[-1]) for row in self.rows]
        return run_paths(self.student, self.teacher, self.bridges, self.images, paths)

    def compare(self, name, actual):
        assert actual.dtype == self.dtype
        tolerance = PRECISIONS[self.dtype]
        assert_close(
            actual.detach().double(),
            self.figures[name].double().reshape(actual.shape),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text: f"{name}: {text}",
        )
        self.compared.add(name)

    def compare_form(self, form, outputs, weight):
        temperature, mix = self.figures["T"].item(), self.figures["mix_weight"].item()
        rampup = feature_rampup(self.figures["epoch"].item() + 1)
        assert rampup == pytest.approx(self.figures["l2_warmup"].item())
        losses = fcfd_loss(
            outputs,
            temperature=temperature,
            feature_weight=self.figures["weight_l2"].item() * rampup,
            mix_weight=mix,
            weight=weight,
        )
        ce = F.cross_entropy(outputs.student_logits, self.labels)
        total = losses["l2"] + losses["kl"] + ce
        self.compare(f"{form}.total", total)
        self.compare(f"{form}.l2_by_stage", feature_losses(outputs, weight=weight))
        kl = [
            kd_loss(logits, outputs.teacher_logits, temperature=temperature, weight=weight)
            for logits in (outputs.student_logits, *outputs.mixed_logits)
        ]
        if form == "fcfd":
            self._compare_parts(ce, [kl[0], *(mix * x for x in kl[1:])])
        else:
            self.compare(f"{form}.kl_by_path", torch.stack(kl))
        self._compare_gradients(form, total)

    def _compare_parts(self, ce, kl):
        zero = torch.zeros((), dtype=self.dtype)
        for i, x in enumerate([zero, *kl]):
            self.compare(f"fcfd.path{i}.kl_stu_weighted", x)
            self.compare(f"fcfd.path{i}.loss_label", ce if i == 1 else zero)

    def _compare_gradients(self, form, total):
        prefix = f"{form}.grad."
        names = [k.removeprefix(prefix) for k in self.figures if k.startswith(prefix)]
        modules = torch.nn.ModuleDict({"models": torch.nn.ModuleDict({"1": self.student})})
        modules["bridges"] = self.bridges.bridges
        parameters = [modules.get_parameter(name) for name in names]
        gradients = torch.autograd.grad(total, parameters, retain_graph=True)
        for name, gradient in zip(names, gradients, strict=True):
            self.compare(prefix + name, gradient)


def _below(prefix, arrays):
    return {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}


@pytest.fixture(params=PRECISIONS, ids=str)
def dtype(request):
    return request.param


@pytest.mark.parametrize("name", CASES)
def test_released_code(name, dtype):
    case = Case(name, dtype)
    outputs = case.run()
    compare_outputs(case, outputs)
    for network in ("student", "teacher"):
        bn1 = getattr(case, network).bn1
        case.compare(f"{network}_bn1_running_mean_after", bn1.running_mean)
    ea = entropy_weight(
        outputs.student_logits,
        outputs.teacher_logits,
        temperature=case.figures["t"].item(),
        bound=case.figures["H_ub"].item(),
    )
    er = entropy(outputs.teacher_logits, temperature=4)
    case.compare("w_ea", ea)
    case.compare("er_entropy_t4", er)
    case.compare_form("fcfd", outputs, None)
    case.compare_form("ea_fcfd", outputs, ea)
    case.compare_form("er_fcfd_intended", outputs, er)
    others = case.figures.keys() - case.compared - INPUTS
    assert all(key.startswith(SLIP) for key in others)


def compare_outputs(case, outputs):
    """Logits of each path, and the maps in the teacher's space by the path so far."""
    stages = case.student.num_stages
    rows = [".".join(map(str, row)) for row in [(0,) * stages, (1,) * stages, *case.rows]]
    logits = [outputs.teacher_logits, outputs.student_logits, *outputs.mixed_logits]
    for row, x in zip(rows, logits, strict=True):
        case.compare(f"logits.{row}", x)
    for k in range(1, stages):
        teacher, student, *mixed = (row[: 2 * k + 1] for row in rows)
        gone_over = [row for row in mixed if "1" in row and row.endswith("0")]
        maps = [outputs.teacher_maps[k - 1], *outputs.bridged_maps[k - 1]]
        for row, x in zip([teacher, student, *gone_over], maps, strict=True):
            case.compare(f"inter.stage{k}.{row}", x)


def test_released_pieces(dtype):
    arrays = _below("piece.", golden("fcfd"))
    piece = {
        k: a.to(dtype) if k in ("feat", "feat_target", "student", "teacher") else a
        for k, a in arrays.items()
    }
    assert_near = partial(assert_close, rtol=PRECISIONS[dtype], atol=PRECISIONS[dtype])
    features, target = piece["feat"].requires_grad_(), piece["feat_target"]
    student, teacher = piece["student"].requires_grad_(), piece["teacher"]
    outputs = PathOutputs(student, teacher, [], [target, target], [[features], [features]])
    weights = {
        "": None,
        "ea_": entropy_weight(student, teacher, temperature=piece["t"].item()),
        "er_": entropy(teacher, temperature=4),
    }
    assert_near(weights["ea_"].double(), piece["w_ea"])
    assert_near(weights["er_"].double(), piece["er_entropy_t4"])
    for form, weight in weights.items():
        plain, last = feature_losses(outputs, weight=weight)
        kl = fcfd_loss(outputs, temperature=piece["T"].item(), weight=weight)["kl"]
        pooled = "l2_pooled_intended" if form == "er_" else "l2_pooled"
        for name, loss, leaf in (
            ("l2", plain, features),
            (pooled, last - plain, features),
            ("kl", kl, student),
        ):
            assert_near(loss.double(), piece[form + name])
            if f"{form}{name}_grad" in piece:
                (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
                assert_near(gradient.double(), piece[f"{form}{name}_grad"])
    rampup = [feature_rampup(epoch) for epoch in range(1, 26)]
    assert rampup == pytest.approx(piece["l2_warmup_by_epoch"].tolist())

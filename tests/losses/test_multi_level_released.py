import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from eakd_det.benchmark.multi_level_terms import (
    batch_errors,
    class_errors,
    confidences,
    kl,
    masks,
    released_terms,
)
from eakd_det.losses import entropy_weight, multi_level_loss
from eakd_det.losses import standardize as standardize_logits
from tests.golden import PRECISIONS, golden

CASES = ["a", "b"]
VARIANTS = ["mld", "mld_ls", "ea_mld", "ea_mld_ls"]
INPUTS = {
    *("student_weak", "student_strong", "teacher_weak", "teacher_strong", "target"),
    *("H_ub", "t", "Ts", "T", "kd_weight", "ce_weight", "EA", "LS"),
}


class Released:
    """A case of the figures of the released code, with our values."""

    def __init__(self, case, dtype):
        self.arrays = {
            name.removeprefix(f"{case}."): array
            for name, array in golden("mld").items()
            if name.startswith(f"{case}.")
        }
        names = "student_weak", "student_strong", "teacher_weak", "teacher_strong"
        self.views = [self.arrays[name].to(dtype) for name in names]
        self.weak, self.strong = self.views[::2], self.views[1::2]
        for student in self.views[:2]:
            student.requires_grad_()
        self.t = self.arrays["t"].item()

    def weights(self):
        return [entropy_weight(*view, temperature=self.t) for view in (self.weak, self.strong)]

    def of_case(self):
        """Masks, weights, and single terms by temperature, from the terms of this file."""
        weights = dict(zip(["weak", "strong"], self.weights(), strict=True))
        (confidence, class_confidence), (mask, class_mask) = (
            function(self.weak[1]) for function in (confidences, masks)
        )
        ours = {
            "conf": confidence,
            "conf_thresh": confidence.quantile(0.5),
            "mask": mask,
            "class_conf": class_confidence,
            "class_conf_thresh": class_confidence.quantile(0.5),
            "class_mask": class_mask,
            "w_weak": weights["weak"],
            "w_strong": weights["strong"],
        }
        for name, view in {"weak": self.weak, "strong": self.strong}.items():
            standardized = [standardize_logits(z) for z in view]
            n, c = view[0].shape
            terms = {
                "kd": lambda tau, v=view: kl(*v, tau).mean(),
                "kd_ls": lambda tau, v=standardized: kl(*v, tau).mean(),
                "eakd": lambda tau, v=view, w=weights[name]: (w * kl(*v, tau)).mean(),
                "eakd_ls": lambda tau, v=standardized, w=weights[name]: (w * kl(*v, tau)).mean(),
                "cc": lambda tau, v=view, c=c: class_errors(*v, tau).sum() / c,
                "bc": lambda tau, v=view, n=n: batch_errors(*v, tau).sum() / n,
            }
            taus = self.arrays["Ts"].tolist()
            for term, function in terms.items():
                ours[f"{term}_{name}_by_T"] = torch.stack([function(tau) for tau in taus])
        return ours

    def of_variant(self, variant):
        """The loss with its gradients, and its parts, from the terms of this file."""
        settings = {
            key: self.arrays[f"{variant}.{key}"].item()
            for key in ("T", "kd_weight", "ce_weight", "EA", "LS")
        }
        options = {"temperature": settings["T"], "standardize": bool(settings["LS"])}
        weights = self.weights() if settings["EA"] else [None, None]
        loss = settings["kd_weight"] * multi_level_loss(
            *self.views, weak_weight=weights[0], strong_weight=weights[1], **options
        )
        target = self.arrays["target"]
        cross_entropy = sum(F.cross_entropy(student, target) for student in self.views[:2])
        total = loss + settings["ce_weight"] * cross_entropy
        gradient_weak, gradient_strong = torch.autograd.grad(total, self.views[:2])

        weights = weights if settings["EA"] else [1.0, 1.0]
        parts = released_terms(self.weak, self.strong, weights, *options.values())
        parts = {name: settings["kd_weight"] * part for name, part in parts.items()}
        return parts | {
            "loss_ce": settings["ce_weight"] * cross_entropy,
            "loss_kd": loss - parts["cc_weak"] - parts["bc_weak"],
            "loss_cc": loss - parts["kd_weak"] - parts["kd_strong"] - parts["bc_weak"],
            "loss_bc": loss - parts["kd_weak"] - parts["kd_strong"] - parts["cc_weak"],
            "total": total,
            "grad_weak": gradient_weak,
            "grad_strong": gradient_strong,
        }

    def compare(self, ours, prefix, dtype):
        tolerance = PRECISIONS[dtype]
        for name, value in ours.items():
            # Its log(p + 1e-10) makes the weights low by up to 2 C * 1e-10.
            slack = 2e-6 if (prefix + name).startswith(("ea", "w_")) else 0.0
            assert_close(
                value.detach().double(),
                self.arrays[prefix + name].double(),
                rtol=tolerance,
                atol=tolerance + slack,
                msg=lambda text, name=name: f"{prefix}{name}: {text}",
            )


UNUSED = {
    name: "the released code computes it and does not use it"
    for name in ("cc_strong_unused", "bc_strong_unused")
}


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_terms_of_the_released_code(case, dtype):
    released = Released(case, dtype)
    released.compare(released.of_case(), "", dtype)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_released_code(case, variant, dtype):
    released = Released(case, dtype)
    released.compare(released.of_variant(variant), f"{variant}.", dtype)


@pytest.mark.parametrize("case", CASES)
def test_no_released_figure_is_forgotten(case):
    released = Released(case, torch.float64)
    known = released.of_case().keys() | {
        f"{variant}.{name}"
        for variant in VARIANTS
        for name in released.of_variant(variant).keys() | UNUSED.keys()
    }
    assert {name.split(".")[0] for name in golden("mld")} == set(CASES)
    inputs = {name for name in released.arrays if name.rpartition(".")[2] in INPUTS}
    assert released.arrays.keys() - inputs == known

"""Comparison of variants of a distilled step; operations of a step, memory of a teacher."""

from typing import Any

import torch
from detectron2.config import CfgNode
from fvcore.nn import FlopCountAnalysis

from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher.build import build_teacher

from .batches import with_options
from .gpu import MIB
from .steps import Batch, build_step


def differences(
    cfg: CfgNode, variants: dict[str, dict[str, Any]], batch: Batch
) -> dict[str, float]:
    """Compare the first step of variants with that of the first variant.

    All have the same weights and random numbers.

    Returns:
        "variant, losses" -> largest relative difference of a loss; "variant, gradients" -> largest
        norm of a difference of a parameter's gradients, relative to the gradient's norm.
    """
    results, expected = {}, None
    for name, options in variants.items():
        step = build_step(with_options(cfg, options), batch)
        step.trainer.read_period = 1
        torch.manual_seed(1)
        step()
        losses, parameters = step.losses(), step.trainer.model.named_parameters()
        gradients = {k: p.grad for k, p in parameters if p.grad is not None}
        if expected is None:
            expected = losses, gradients
            continue
        results[f"{name}, losses"] = max(
            abs(losses[key] - loss) / abs(loss) for key, loss in expected[0].items()
        )
        results[f"{name}, gradients"] = max(
            ((gradients[key] - x).norm() / x.norm()).item()
            for key, x in expected[1].items()
            if x.norm() > 0
        )
    return results


def teacher_weights_mib(cfg: CfgNode) -> float:
    """Return the memory of the teacher's parameters and buffers in MiB."""
    model = build_teacher(cfg).model
    tensors = [*model.parameters(), *model.buffers()]
    return sum(x.numel() * x.element_size() for x in tensors) / MIB


def step_flops(cfg: CfgNode, batch: Batch) -> float:
    """Return the floating-point operations of a distilled step in convolutions and linear layers.

    fvcore counts the multiplications of the forward passes, to which as many additions are added;
    the student's backward pass counts as two forward passes.
    """
    step = build_step(with_options(cfg, {"TEACHER.FAST": False}), batch)
    student = step.trainer.model
    parts = {
        f"{side}_{name}": module
        for side, model in (("student", student), ("teacher", student.teacher.model))
        for name, module in {
            "backbone": model.backbone,
            "rpn": model.proposal_generator.rpn_head,
            "head": model.roi_heads.box_head,
            "predictor": model.roi_heads.box_predictor,
        }.items()
    }
    with record(**parts) as calls:
        step()
    total = 0
    for name, module in parts.items():
        for call in calls[name]:
            args = tuple(_detached(x) for x in call.args)
            count = FlopCountAnalysis(module, args).unsupported_ops_warnings(False)
            total += count.uncalled_modules_warnings(False).total() * (
                3 if name.startswith("student") else 1
            )
    return 2 * total


def _detached(x: Any) -> Any:
    return [y.detach() for y in x] if isinstance(x, list | tuple) else x.detach()

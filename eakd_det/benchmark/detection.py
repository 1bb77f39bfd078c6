"""Training steps of a detector, stock and distilled, on random images with random weights."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from fvcore.nn import FlopCountAnalysis
from torch import Tensor, nn

from eakd_det.config.defaults import stock_config
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.modeling.recorder import record
from eakd_det.modeling.teacher.build import build_teacher, teacher_config
from eakd_det.utils.precision import precision

OBJECTS = 8  # per image

# Name -> config keys. Each distilled variant after the first adds an option to the one before.
VARIANTS = {
    "stock_step": {},
    "stock_step_sparse_pool": {"MODEL.ROI_HEADS.POOLER_BACKEND": "sparse"},
    "distill_step_plain_teacher": {"TEACHER.FAST": False},
    "distill_step_torchvision_pool": {},
    "distill_step": {"MODEL.ROI_HEADS.POOLER_BACKEND": "sparse"},
    "distill_step_bf16_teacher": {
        "MODEL.ROI_HEADS.POOLER_BACKEND": "sparse",
        "TEACHER.PRECISION": "bfloat16",
    },
}


@dataclass
class Size:
    """Size of a batch: number of images, and their height and width in pixels."""

    images: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.images} x {self.height} x {self.width}"


def make_batch(size: Size, num_classes: int) -> list[dict[str, Any]]:
    """Return images of noise with a few boxes, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    extent = torch.tensor([size.width, size.height])
    batch = []
    for _ in range(size.images):
        image = torch.randint(
            256, (3, size.height, size.width), dtype=torch.uint8, generator=generator
        )
        corners = torch.rand(OBJECTS, 2, generator=generator) * extent * 0.6
        sides = (0.1 + 0.3 * torch.rand(OBJECTS, 2, generator=generator)) * extent
        instances = Instances((size.height, size.width))
        instances.gt_boxes = Boxes(torch.cat([corners, corners + sides], dim=1))
        instances.gt_classes = torch.randint(num_classes, (OBJECTS,), generator=generator)
        batch.append({"image": image, "instances": instances})
    return batch


def save_random_teacher(cfg: CfgNode, folder: str) -> None:
    """Save random weights that keep a deep network finite, and set TEACHER.WEIGHTS to them."""
    model = build_model(teacher_config(with_options(cfg, {"TEACHER.WEIGHTS": "random"})))
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)
    path = os.path.join(folder, "teacher.pth")
    torch.save({"model": model.state_dict()}, path)
    cfg.TEACHER.WEIGHTS = path


def with_options(cfg: CfgNode, options: dict[str, Any]) -> CfgNode:
    """Copy a config with other values of some keys."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list([x for pair in options.items() for x in pair])
    return cfg


class Step:
    """Callable that runs a training step of a model on one batch."""

    def __init__(self, model: nn.Module, cfg: CfgNode, batch: list[dict[str, Any]]):
        self.model, self.batch = model.train(), batch
        # With a learning rate of 0, an update takes its usual time and the weights do not change.
        self.optimizer = build_optimizer(with_options(cfg, {"SOLVER.BASE_LR": 0.0}), model)
        amp = cfg.SOLVER.AMP
        dtype = precision(amp.DTYPE)
        self.autocast = lambda: torch.autocast(model.device.type, dtype, enabled=amp.ENABLED)
        self.scaler = torch.amp.GradScaler(
            model.device.type, enabled=amp.ENABLED and dtype == torch.float16
        )

    def __call__(self) -> dict[str, Tensor]:
        """Run a step, at an iteration that is not logged, and return its losses."""
        self.optimizer.zero_grad()
        with EventStorage(), self.autocast():
            losses = self.model(self.batch)
        self.scaler.scale(sum(losses.values())).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return losses


def build_step(cfg: CfgNode, variant: str, batch: list[dict[str, Any]]) -> Step:
    """Build the step of one of VARIANTS; all of them start with the same student."""
    cfg = with_options(cfg, VARIANTS[variant])
    if variant.startswith("stock"):
        cfg.MODEL.META_ARCHITECTURE = stock_config(cfg).MODEL.META_ARCHITECTURE
    torch.manual_seed(0)
    model = DistillTrainer.build_model(cfg)
    return Step(model, cfg, batch)


def steps_to_time(cfg: CfgNode, size: Size) -> dict[str, Callable[[], object]]:
    """Build the steps of VARIANTS, and a lower bound: a stock step plus the teacher's forward."""
    batch = make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    steps = {name: build_step(cfg, name, batch) for name in VARIANTS}
    stock = steps["stock_step"]
    teacher = build_teacher(cfg)
    teacher.prepare(keep_levels=False)
    with record(pooler=stock.model.roi_heads.box_pooler) as calls:
        stock()
    boxes = [Boxes(x.tensor.detach()) for x in calls["pooler"][0].args[1]]

    def lower_bound() -> None:
        stock()
        teacher.roi_logits(teacher.features(batch, cfg.INPUT.FORMAT), boxes)

    return {**steps, "stock_step_and_teacher": lower_bound}


def teachers_to_time(cfg: CfgNode, size: Size) -> dict[str, Callable[[], object]]:
    """Build forward passes of the teacher's backbone from raw images, stock and prepared."""
    batch = make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    variants = {}
    for name, options in {
        "teacher_backbone_stock": {"TEACHER.FAST": False},
        "teacher_backbone": {},
        "teacher_backbone_bf16": {"TEACHER.PRECISION": "bfloat16"},
    }.items():
        teacher = build_teacher(with_options(cfg, options))
        teacher.prepare(keep_levels=False)
        variants[name] = lambda teacher=teacher: teacher.features(batch, cfg.INPUT.FORMAT)
    return variants


def differences(cfg: CfgNode, size: Size) -> dict[str, float]:
    """Compare the fast steps with the plain one, from the same weights and random numbers.

    Returns:
        "variant, losses" -> largest relative difference of a loss; "variant, gradients" -> largest
        norm of a difference of a parameter's gradients, relative to the gradient's norm.
    """
    batch = make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    results, expected = {}, None
    for name in ("distill_step_plain_teacher", "distill_step_torchvision_pool", "distill_step"):
        step = build_step(cfg, name, batch)
        torch.manual_seed(1)
        losses = {key: loss.item() for key, loss in step().items()}
        gradients = {k: p.grad for k, p in step.model.named_parameters() if p.grad is not None}
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
    return sum(x.numel() * x.element_size() for x in tensors) / 2**20


def step_flops(cfg: CfgNode, size: Size) -> float:
    """Return the floating-point operations of a distilled step in convolutions and linear layers.

    fvcore counts the multiplications of the forward passes, to which as many additions are added;
    the student's backward pass counts as two forward passes.
    """
    batch = make_batch(size, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    step = build_step(cfg, "distill_step_plain_teacher", batch)
    student, teacher = step.model, step.model.teacher.model
    parts = {
        f"{side}_{name}": module
        for side, model in (("student", student), ("teacher", teacher))
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

"""The base of the distilled meta-architectures."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from eakd_det.data.class_names import dataset_names
from eakd_det.distillers import (
    DISTILLERS,
    DistillationBatch,
    DistillationObjective,
    LogitPair,
    method_settings,
)
from eakd_det.modeling.compatibility import check_input_formats
from eakd_det.modeling.named_features import compare_maps
from eakd_det.modeling.recorder import Call, record
from eakd_det.modeling.teacher import build_teacher
from eakd_det.modeling.weight_picture import put_picture

from .with_detector_teacher import WithDetectorTeacher

CAUSES = (
    "Are its classes in another order than the labels, was it trained on other data, or are "
    "INPUT.FORMAT (the channel order) and MODEL.PIXEL_MEAN of TEACHER.CONFIG_FILE not its own?"
)


class Distilled(WithDetectorTeacher):
    """Adds distillation losses to the training of the stock meta-architecture that it precedes.

    A subclass defines the hooks of ComparedHeads.

    Attributes:
        stock: the stock meta-architecture, whose checkpoints it loads and saves.
        adapters: modules that train beside the student and are no part of it: neither "model" of a
            checkpoint nor an exported student has them.
    """

    stock: type[nn.Module]
    vis_period: int

    @configurable
    def __init__(self, *, distillation: dict[str, Any], **stock: Any):
        """
        Args:
            distillation: as `distillation_from_config` returns it:
                teacher, None if there are no methods;
                methods, name in DISTILLERS -> its options, with "weight", the factor of its loss;
                ea, enabled, mode, temperature, bound and background of the EA weight;
                levels and features, arguments of `compare_maps`;
                dataset, whose class names the teacher's are compared with, and the pictures of
                VIS_PERIOD show;
                classes, which both have in common (`match_classes`); without it, all.
            stock: the arguments of the stock meta-architecture.

        Raises:
            UserError: teacher and student cannot be compared.
        """
        super().__init__(**stock)
        self.teacher, self.dataset = distillation["teacher"], distillation["dataset"]
        methods, ea = distillation["methods"], distillation["ea"]
        self.objective = DistillationObjective(
            DISTILLERS, methods, ea, samples="objects", causes=CAUSES
        )
        self.compares_logits = self.objective.compares_logits
        if methods:
            check_input_formats(self.input_format, self.teacher.input_format)
        self.compares_objectness = bool(self.objective.methods_on("objectness"))
        self.runs_heads = bool(self.objective.methods_on("heads"))
        if self.compares_logits or self.compares_objectness:
            self._check_heads(methods)
        self.class_map = self._map_classes(distillation["classes"], methods)
        self.maps = compare_maps(self, distillation["levels"], distillation["features"])
        self.teacher_levels = self._levels_of_teacher()
        heads = (self._head_levels(),) if self.runs_heads else ()
        self.adapters = self.objective.build_adapters(*self.maps.channels, heads=heads)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "distillation": distillation_from_config(cfg)}

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Run the stock model; in training, add the losses of the methods to its own.

        Without gradients (Detectron2's PreciseBN, for example) the teacher does not run, and no
        pictures are drawn.
        """
        if self.training and not torch.is_grad_enabled():
            return self._without_pictures(batched_inputs)
        if not self._distils():
            return super().forward(batched_inputs)
        sources = self._recorded() if self.compares_logits or self.compares_objectness else {}
        log_difference = None if self.teacher.is_prepared else self._prepare_teacher(batched_inputs)
        begun = self._begin_features(batched_inputs)
        with record(backbone=self.backbone, **self.maps.sources(self), **sources) as calls:
            losses = super().forward(batched_inputs)
        teacher_features = begun()
        if log_difference is not None:
            log_difference(calls, teacher_features)
        losses.update(self._distill(calls, batched_inputs, teacher_features))
        return losses

    def _without_pictures(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the stock losses alone."""
        period, self.vis_period = self.vis_period, 0
        try:
            return super().forward(batched_inputs)
        finally:
            self.vis_period = period

    def _distill(
        self,
        calls: dict[str, list[Call]],
        batched_inputs: list[dict[str, Any]],
        teacher_features: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        images, pairs = calls["backbone"][0].args[0], []
        if self.compares_logits:
            pairs = self._mapped_pairs(calls, self.teacher, teacher_features)
            self._check_class_order(pairs[0])
            self._draw(pairs[0], batched_inputs[0])
        objectness = None
        if self.compares_objectness:
            objectness = self._objectness(calls, self.teacher, teacher_features)
        *maps, size = self.maps.compared(calls, teacher_features, tuple(images.shape[-2:]))
        batch = DistillationBatch(
            logit_pairs=pairs,
            student_features=maps[0],
            teacher_features=maps[1],
            boxes=lambda: [
                x["instances"].gt_boxes.tensor.to(images.device) for x in batched_inputs
            ],
            padded_size=size,
            objectness=objectness,
            heads=self._box_heads(calls) if self.runs_heads else None,
        )
        return self.objective(batch, self.adapters)

    def _draw(self, pair: LogitPair, sample: dict[str, Any]) -> None:
        """Every VIS_PERIOD, draw the first image's samples with the highest and lowest w_EA."""
        put_picture(
            pair,
            sample["image"],
            self.objective,
            period=self.vis_period,
            input_format=self.input_format,
            names=self.class_map.names if self.class_map else dataset_names(self.dataset),
        )


def adapter_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return what a checkpoint holds beside a student, as a checkpointer's keyword arguments."""
    if not isinstance(model, Distilled) or not any(True for _ in model.adapters.parameters()):
        return {}
    return {"helpers": model.adapters}  # the name in checkpoints


def distillation_from_config(cfg: CfgNode) -> dict[str, Any]:
    """Build the argument `distillation` of a distilled meta-architecture."""
    return {
        **method_settings(cfg.DISTILL, DISTILLERS),
        "levels": cfg.DISTILL.LEVELS,
        "features": cfg.DISTILL.FEATURES,
        "teacher": build_teacher(cfg) if cfg.DISTILL.METHODS else None,
        "dataset": next(iter(cfg.DATASETS.TRAIN), ""),
        "classes": cfg.DISTILL.CLASSES,
    }

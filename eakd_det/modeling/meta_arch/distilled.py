"""The base of the distilled meta-architectures."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from eakd_det.data.class_names import check_class_order, dataset_names, loaded_names
from eakd_det.distillers import (
    DISTILLERS,
    BoxHeads,
    ClassMap,
    DistillationBatch,
    DistillationObjective,
    LogitPair,
    method_settings,
)
from eakd_det.modeling.compatibility import check_input_formats, map_classes, warn_of_one_class
from eakd_det.modeling.named_features import compare_maps
from eakd_det.modeling.recorder import Call, record
from eakd_det.modeling.teacher import DetectorTeacher, build_teacher
from eakd_det.modeling.weight_picture import put_picture
from eakd_det.utils.errors import UserError

from .with_detector_teacher import WithDetectorTeacher

CAUSES = (
    "Are its classes in another order than the labels, was it trained on other data, or are "
    "INPUT.FORMAT (the channel order) and MODEL.PIXEL_MEAN of TEACHER.CONFIG_FILE not its own?"
)


class Distilled(WithDetectorTeacher):
    """Adds distillation losses to the training of the stock meta-architecture that it precedes.

    A subclass defines what to record of the student's heads, and how to read the records.

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
                ea, enabled, mode, temperature and bound of the EA weight;
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
        self.class_map = None
        if self.compares_logits:
            self.class_map = self._map_classes(distillation["classes"], methods)
        elif methods and distillation["classes"]:
            logging.getLogger(__name__).warning(
                "DISTILL.CLASSES has no effect: neither DISTILL.METHODS nor the EA weight compares "
                "classes."
            )
        self.maps = compare_maps(self, distillation["levels"], distillation["features"])
        self.teacher_levels = set(self.maps.of_teacher)
        if self.compares_logits:
            self.teacher_levels.update(self._logit_levels())
        if self.compares_objectness:
            self.teacher_levels.update(self.teacher.model.proposal_generator.in_features)
        self._is_order_checked = False
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

    def _teacher_outputs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[Tensor]:
        """Return a teacher's logits if methods compare them, else its maps, or its objectness."""
        if self.compares_logits:
            return [pair.teacher_logits for pair in self._mapped_pairs(calls, teacher, features)]
        if self.maps.levels:
            return self.maps.teacher_maps(features)
        return [self._objectness(calls, teacher, features).teacher_logits]

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

    def _map_classes(self, classes: Sequence, methods: Iterable[str]) -> ClassMap | None:
        """Check the classes of student and teacher; return the map of those in common, if not all.

        Raises:
            UserError: see `map_classes`.
        """
        if classes and self.runs_heads:
            raise UserError(
                f"DISTILL.CLASSES: {self.objective.methods_on('heads')[0]} runs each box head on "
                "the other's feature maps, with all of its classes. Choose other DISTILL.METHODS, "
                "or a teacher of the student's classes."
            )
        here, there, key = self._num_classes()
        names = loaded_names(self.dataset) if classes else ()
        class_map = map_classes((names, here), (self.teacher.names_of(there), there), classes, key)
        warn_of_one_class(len(class_map.names) if class_map else here, methods)
        return class_map

    def _mapped_pairs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[LogitPair]:
        """Return `_logit_pairs` over the classes that are compared."""
        pairs = self._logit_pairs(calls, teacher, features)
        return pairs if self.class_map is None else [self.class_map(pair) for pair in pairs]

    def _check_class_order(self, pair: LogitPair) -> None:
        """Compare the teacher's class names with the dataset's, in the first batch.

        The data are registered and loaded by then.
        """
        if self._is_order_checked:
            return
        self._is_order_checked = True
        if self.class_map is None:
            names = self.teacher.names_of(pair.num_classes) or self.teacher.class_names
            check_class_order(dataset_names(self.dataset), names)

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

    def _check_heads(self, methods: dict[str, dict[str, Any]]) -> None:
        """Raise UserError if the methods cannot compare the heads of student and teacher."""
        raise NotImplementedError

    def _num_classes(self) -> tuple[int, int, str]:
        """Return the number of the student's and the teacher's classes, and its config key."""
        raise NotImplementedError

    def _logit_levels(self) -> list[str]:
        """Return the names of the teacher's feature maps that its logits are computed from."""
        raise NotImplementedError

    def _recorded(self) -> dict[str, Any]:
        """Return the modules and bound methods to `record`, beside the backbone."""
        raise NotImplementedError

    def _logit_pairs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[LogitPair]:
        """Pair the recorded logits of the student with a teacher's, from its features."""
        raise NotImplementedError

    # Of R-CNNs; the checks refuse methods that need them of others.

    def _objectness(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> LogitPair:
        """Pair the recorded objectness of the student with a teacher's, from its features."""
        raise NotImplementedError

    def _box_heads(self, calls: dict[str, list[Call]]) -> BoxHeads:
        """Return the box heads of student and teacher, on the recorded boxes."""
        raise NotImplementedError

    def _head_levels(self) -> list[int]:
        """Return the indices in `maps.levels` of those that the box heads read."""
        raise NotImplementedError


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

"""Detectron2's meta-architectures with a teacher at their side."""

from collections.abc import Iterable
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import cat
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from .distillers import DISTILLERS, EA_MODES, View
from .errors import UserError
from .record import Call, record
from .statistics import LOG_PERIOD, roi_statistics
from .teacher import Teacher, build_teacher


class Distilled(nn.Module):
    """Adds distillation losses to the training of the stock meta-architecture that it precedes.

    A subclass says which modules to record, and how to read the records.
    """

    def _init_distillation(
        self, teacher: Teacher | None, methods: dict[str, dict[str, Any]], ea: dict[str, Any]
    ) -> None:
        """Take what `distillation_from_config` gives; call after the stock __init__."""
        self.teacher = teacher
        self.methods = {}
        for name, options in methods.items():
            options = dict(options)
            self.methods[name] = (options.pop("weight"), options)
        self.weigh = EA_MODES[ea["mode"]] if ea["enabled"] else None
        self.entropy_options = {"temperature": ea["temperature"], "bound": ea["bound"] or None}
        if methods:
            self._check_teacher()

    def _apply(self, fn, *args, **kwargs):
        """Move the teacher along with the student."""
        if self.teacher is not None:
            self.teacher.model._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """As the stock model; in training the losses of the methods stand beside its own."""
        if not (self.training and self.methods):
            return super().forward(batched_inputs)
        with record(**self._recorded_modules()) as calls:
            losses = super().forward(batched_inputs)
        losses.update(self._distill(*self._views(calls, batched_inputs)))
        return losses

    def _distill(self, student: View, teacher: View, labels: Tensor) -> dict[str, Tensor]:
        weight = None
        if self.weigh is not None:
            weight = self.weigh(student.logits, teacher.logits, **self.entropy_options)
        losses = {}
        for name, (scale, options) in self.methods.items():
            loss = DISTILLERS[name](student, teacher, labels, weight, **options)
            losses[f"loss_{name.lower()}"] = scale * loss
        storage = get_event_storage()
        if (storage.iter + 1) % LOG_PERIOD == 0:
            statistics = roi_statistics(
                student.logits, teacher.logits, labels, **self.entropy_options
            )
            storage.put_scalars(**statistics, smoothing_hint=False)
        return losses

    def _check_teacher(self) -> None:
        raise NotImplementedError

    def _recorded_modules(self) -> dict[str, nn.Module]:
        raise NotImplementedError

    def _views(
        self, calls: dict[str, list[Call]], batched_inputs: list[dict[str, Any]]
    ) -> tuple[View, View, Tensor]:
        raise NotImplementedError


def distillation_from_config(cfg: CfgNode) -> dict[str, Any]:
    """The arguments that a distilled meta-architecture takes beside the stock ones."""
    methods = tuple(cfg.DISTILL.METHODS)
    _check_choices("DISTILL.METHODS", methods, DISTILLERS)
    _check_choices("DISTILL.EA.MODE", (cfg.DISTILL.EA.MODE,), EA_MODES)
    return {
        "teacher": build_teacher(cfg) if methods else None,
        "methods": {name: _lower_keys(cfg.DISTILL[name]) for name in methods},
        "ea": _lower_keys(cfg.DISTILL.EA),
    }


def _check_choices(key: str, values: Iterable[str], choices: Iterable[str]) -> None:
    for value in values:
        if value not in choices:
            raise UserError(f"{key}: {value!r} is unknown; choose from {', '.join(choices)}.")


def _lower_keys(node: CfgNode) -> dict[str, Any]:
    return {key.lower(): value for key, value in node.items()}


@META_ARCH_REGISTRY.register()
class DistillRCNN(Distilled, GeneralizedRCNN):
    """GeneralizedRCNN that learns from a teacher's class logits on its own sampled proposals."""

    @configurable
    def __init__(
        self,
        *,
        teacher: Teacher | None,
        methods: dict[str, dict[str, Any]],
        ea: dict[str, Any],
        **stock: Any,
    ):
        """
        Args:
            teacher: None if `methods` is empty.
            methods: name in DISTILLERS -> its options, with "weight", the factor of its loss.
            ea: enabled, mode, temperature and bound of the EA weight.
            stock: the arguments of GeneralizedRCNN.

        Raises:
            UserError: teacher and student cannot be compared.
        """
        super().__init__(**stock)
        self._init_distillation(teacher, methods, ea)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), **distillation_from_config(cfg)}

    def _check_teacher(self) -> None:
        student, teacher = self, self.teacher.model
        for model, place in [(student, "the student's config"), (teacher, "TEACHER.CONFIG_FILE")]:
            remedy = _remedy(model)
            if remedy:
                raise UserError(
                    "DISTILL.METHODS compares softmaxes over ROIs pooled from an FPN, but the "
                    f"student is a {_describe(student)} and the teacher a {_describe(teacher)}: "
                    f"set {remedy} in {place}."
                )
        here, there = student.roi_heads.num_classes, teacher.roi_heads.num_classes
        if here != there:
            raise UserError(
                f"The student has {here} classes and the teacher {there}: set "
                "MODEL.ROI_HEADS.NUM_CLASSES to the teacher's, or let TEACHER.CONFIG_FILE and "
                "TEACHER.WEIGHTS name a teacher of the student's classes."
            )

    def _recorded_modules(self) -> dict[str, nn.Module]:
        heads = self.roi_heads
        return {
            "backbone": self.backbone,
            "box_pooler": heads.box_pooler,
            "box_predictor": heads.box_predictor,
            "roi_heads": heads,
        }

    def _views(self, calls, batched_inputs):
        student_features = calls["backbone"][0].output
        student_logits, _ = calls["box_predictor"][0].output
        # Not the returned proposals' boxes: TRAIN_ON_PRED_BOXES has replaced those.
        _, boxes = calls["box_pooler"][0].args
        proposals, _ = calls["roi_heads"][0].output
        labels = cat([p.gt_classes for p in proposals])
        teacher_features = self.teacher.features(batched_inputs)
        teacher_logits = self.teacher.roi_logits(teacher_features, boxes)
        student = View(features=student_features, logits=student_logits)
        teacher = View(features=teacher_features, logits=teacher_logits)
        return student, teacher, labels


def _describe(model: nn.Module) -> str:
    """The detector in a few words: its architecture, its ROI heads and their classifier."""
    if not isinstance(model, GeneralizedRCNN):
        return type(model).__name__
    heads = model.roi_heads
    sigmoid = _is_fast_rcnn(heads) and heads.box_predictor.use_sigmoid_ce
    classifier = "a sigmoid" if sigmoid else "a softmax"
    return f"{type(heads).__name__} R-CNN with {classifier} classifier"


def _remedy(model: nn.Module) -> str:
    """The setting that makes a detector fit for softmax distillation; empty if it is."""
    if not isinstance(model, GeneralizedRCNN):
        return "MODEL.META_ARCHITECTURE GeneralizedRCNN"
    if not _is_fast_rcnn(model.roi_heads):
        return "MODEL.ROI_HEADS.NAME StandardROIHeads on an FPN backbone (a C4 head has none)"
    if model.roi_heads.box_predictor.use_sigmoid_ce:
        return "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE False"
    return ""


def _is_fast_rcnn(heads: nn.Module) -> bool:
    return isinstance(heads, StandardROIHeads) and isinstance(
        heads.box_predictor, FastRCNNOutputLayers
    )

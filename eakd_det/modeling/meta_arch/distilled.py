"""What a distilled meta-architecture adds to the stock one, whichever that is."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from eakd_det.data.class_names import check_class_order, dataset_names
from eakd_det.distillers.entropy_statistics import LOG_PERIOD, head_statistics
from eakd_det.distillers.label_agreement import LabelAgreement
from eakd_det.distillers.methods import DISTILLERS, EA_MODES, Comparison, Head
from eakd_det.distillers.settings import method_settings
from eakd_det.losses import shared_softmax
from eakd_det.modeling.compatibility import check_input_formats, match_levels
from eakd_det.modeling.recorder import Call, record
from eakd_det.modeling.teacher import WithTeacher, build_teacher
from eakd_det.modeling.weight_picture import picture_of_weights

CAUSES = (
    "Are its classes in another order than the labels, was it trained on other data, or are "
    "INPUT.FORMAT (the channel order) and MODEL.PIXEL_MEAN of TEACHER.CONFIG_FILE not its own?"
)


class Distilled(WithTeacher):
    """Adds distillation losses to the training of the stock meta-architecture that it precedes.

    A subclass says what to record of the student's heads, and how to read the records.

    Attributes:
        stock: the meta-architecture that a checkpoint of it is of.
    """

    stock: type[nn.Module]

    @configurable
    def __init__(self, *, distillation: dict[str, Any], **stock: Any):
        """
        Args:
            distillation: what `distillation_from_config` gives:
                teacher, None if there are no methods;
                methods, name in DISTILLERS -> its options, with "weight", the factor of its loss;
                ea, enabled, mode, temperature and bound of the EA weight;
                dataset, the one whose class names the teacher's are compared with, and which the
                pictures of VIS_PERIOD show.
            stock: the arguments of the stock meta-architecture.

        Raises:
            UserError: teacher and student cannot be compared.
        """
        super().__init__(**stock)
        self.teacher, self.dataset = distillation["teacher"], distillation["dataset"]
        self.methods = {}
        for name, options in distillation["methods"].items():
            options = dict(options)
            self.methods[name] = (options.pop("weight"), options)
        ea = distillation["ea"]
        self.weigh = EA_MODES[ea["mode"]] if ea["enabled"] else None
        self.entropy_temperature, self.entropy_bound = ea["temperature"], ea["bound"] or None
        compared = {DISTILLERS[name].compares for name in self.methods}
        self.compares_logits = "logits" in compared or bool(self.methods and ea["enabled"])
        if self.methods:
            check_input_formats(self.input_format, self.teacher.input_format)
        if self.compares_logits:
            self._check_heads({name: options for name, (_, options) in self.methods.items()})
        self.levels = match_levels(self, self.teacher.model) if "features" in compared else []
        self.agreement = LabelAgreement("objects", CAUSES)
        self._is_order_checked = False
        # Modules that train with the student and are no part of it: no checkpoint's "model" and
        # no exported student has them.
        self.helpers = nn.ModuleDict(self._build_helpers())

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "distillation": distillation_from_config(cfg)}

    def _build_helpers(self) -> dict[str, nn.Module]:
        if not self.levels:
            return {}
        channels = [
            [backbone.output_shape()[name].channels for name in names]
            for backbone, names in zip(
                (self.backbone, self.teacher.model.backbone),
                zip(*self.levels, strict=True),
                strict=True,
            )
        ]
        with torch.random.fork_rng(devices=[]):  # the student goes on with the random state it had
            return {
                name: DISTILLERS[name].build_helper(*channels)
                for name in self.methods
                if DISTILLERS[name].has_helper
            }

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """As the stock model; in training the losses of the methods stand beside its own.

        Without gradients nobody learns from the teacher, which then does not run: Detectron2's
        PreciseBN, for one, trains nothing. Nor are pictures drawn.
        """
        if self.training and not torch.is_grad_enabled():
            return self._without_pictures(batched_inputs)
        if not (self.training and self.methods):
            return super().forward(batched_inputs)
        sources = self._recorded() if self.compares_logits else {}
        teacher_features = self.teacher.begin_features(batched_inputs, self.input_format)
        with record(backbone=self.backbone, **sources) as calls:
            losses = super().forward(batched_inputs)
        if not self.teacher.is_prepared:
            teacher_features = self._prepare_teacher(calls, batched_inputs, teacher_features())
        losses.update(self._distill(calls, batched_inputs, teacher_features()))
        return losses

    def _without_pictures(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The stock losses alone."""
        period, self.vis_period = self.vis_period, 0
        try:
            return super().forward(batched_inputs)
        finally:
            self.vis_period = period

    def _prepare_teacher(
        self,
        calls: dict[str, list[Call]],
        batched_inputs: list[dict[str, Any]],
        features: dict[str, Tensor],
    ) -> Callable[[], dict[str, Tensor]]:
        """Prepare the teacher, and log how far that changes its outputs for this batch.

        Args:
            features: those of the unprepared teacher.

        Returns:
            A function that returns those of the prepared teacher.
        """
        prepared = {}

        def outputs() -> list[Tensor]:
            if self.teacher.is_prepared:
                prepared.update(self.teacher.features(batched_inputs, self.input_format))
            return self._teacher_outputs(calls, prepared or features)

        are_maps, keep_levels = not self.compares_logits, bool(self.levels)
        self.teacher.prepare(outputs, are_maps=are_maps, keep_levels=keep_levels)
        return lambda: prepared

    def _teacher_outputs(
        self, calls: dict[str, list[Call]], features: dict[str, Tensor]
    ) -> list[Tensor]:
        """Return the teacher's logits if methods compare them, else its feature maps."""
        if self.compares_logits:
            return [head.teacher_logits for head in self._heads(calls, features)]
        return [features[name] for _, name in self.levels]

    def _distill(
        self,
        calls: dict[str, list[Call]],
        batched_inputs: list[dict[str, Any]],
        teacher_features: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        features = calls["backbone"][0].output
        heads = self._heads(calls, teacher_features) if self.compares_logits else []
        with shared_softmax():
            return self._losses(heads, features, teacher_features, batched_inputs[0])

    def _losses(
        self,
        heads: list[Head],
        features: dict[str, Tensor],
        teacher_features: dict[str, Tensor],
        first_input: dict[str, Any],
    ) -> dict[str, Tensor]:
        is_logged = (get_event_storage().iter + 1) % LOG_PERIOD == 0
        if heads:
            self._compare_with_labels(heads[0], is_logged)
        if heads and (self.weigh is not None or is_logged):
            self._weigh_and_log(heads, is_logged)
        # Only the main process writes pictures, and forgets them then.
        is_drawn = self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0
        if heads and is_drawn and comm.is_main_process():
            self._draw(heads[0], first_input)
        comparison = Comparison(
            student_features=[features[name] for name, _ in self.levels],
            teacher_features=[teacher_features[name] for _, name in self.levels],
            heads=heads,
        )
        losses = {}
        for name, (scale, options) in self.methods.items():
            if name in self.helpers:
                options = {**options, "helper": self.helpers[name]}
            for suffix, loss in DISTILLERS[name](comparison, **options).items():
                losses[f"loss_{name.lower()}{suffix}"] = scale * loss
        return losses

    def _compare_with_labels(self, head: Head, is_logged: bool) -> None:
        """Look whether the teacher's classes are those of the labels, in the first batches."""
        if not self._is_order_checked:  # the data are registered and loaded by now
            self._is_order_checked = True
            names = self.teacher.class_names
            if not names and len(dataset_names(self.teacher.dataset)) == head.background:
                names = dataset_names(self.teacher.dataset)
            check_class_order(dataset_names(self.dataset), names)
        if self.agreement.is_open:
            self.agreement.count(head.teacher_logits[:, : head.background], head.labels)
            if is_logged and self.agreement.is_open:
                self.agreement.report()

    def _weigh_and_log(self, heads: list[Head], is_logged: bool) -> None:
        entropies = [head.entropies(self.entropy_temperature) for head in heads]
        for head, pair in zip(heads, entropies, strict=True):
            if self.weigh is not None:
                head.weight = self.weigh(*pair, head.num_outcomes, self.entropy_bound)
        if is_logged:
            statistics = head_statistics(heads, entropies, bound=self.entropy_bound)
            get_event_storage().put_scalars(**statistics, smoothing_hint=False)

    def _draw(self, head: Head, sample: dict[str, Any]) -> None:
        """Put a picture of the first image's samples with the highest and lowest w_EA."""
        names = [str(i) for i in range(head.background)]
        known = dataset_names(self.dataset)  # it may have fewer classes than the model
        names[: len(known)] = known
        image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), self.input_format)
        temperature, bound = self.entropy_temperature, self.entropy_bound
        picture = picture_of_weights(head, image, names, temperature=temperature, bound=bound)
        if picture is not None:
            get_event_storage().put_image("distill/w_ea", picture.transpose(2, 0, 1))

    def _check_heads(self, methods: dict[str, dict[str, Any]]) -> None:
        """Raise UserError if the heads of student and teacher cannot be compared by the methods."""
        raise NotImplementedError

    def _recorded(self) -> dict[str, Any]:
        """Modules and bound methods to `record`, beside the backbone."""
        raise NotImplementedError

    def _heads(
        self, calls: dict[str, list[Call]], teacher_features: dict[str, Tensor]
    ) -> list[Head]:
        raise NotImplementedError


def helper_modules(model: nn.Module) -> dict[str, nn.Module]:
    """What a checkpoint must hold beside a student, as a checkpointer's keyword arguments."""
    has_helpers = isinstance(model, Distilled) and len(model.helpers) > 0
    return {"helpers": model.helpers} if has_helpers else {}


def distillation_from_config(cfg: CfgNode) -> dict[str, Any]:
    """The argument `distillation` of a distilled meta-architecture."""
    return {
        **method_settings(cfg.DISTILL, DISTILLERS),
        "teacher": build_teacher(cfg) if cfg.DISTILL.METHODS else None,
        "dataset": next(iter(cfg.DATASETS.TRAIN), ""),
    }

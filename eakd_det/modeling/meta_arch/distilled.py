"""The base of the distilled meta-architectures."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from eakd_det.data.class_names import check_class_order, dataset_names, loaded_names
from eakd_det.distillers import (
    DISTILLERS,
    ClassMap,
    DistillationBatch,
    DistillationObjective,
    LogitPair,
    method_settings,
)
from eakd_det.modeling.compatibility import (
    check_input_formats,
    have_equal_strides,
    map_classes,
    match_levels,
    warn_of_one_class,
)
from eakd_det.modeling.padding import crop_to_common
from eakd_det.modeling.recorder import Call, record
from eakd_det.modeling.teacher import (
    DetectorTeacher,
    WithTeacher,
    build_teacher,
    log_output_difference,
)
from eakd_det.modeling.weight_picture import picture_of_weights

CAUSES = (
    "Are its classes in another order than the labels, was it trained on other data, or are "
    "INPUT.FORMAT (the channel order) and MODEL.PIXEL_MEAN of TEACHER.CONFIG_FILE not its own?"
)


class Distilled(WithTeacher):
    """Adds distillation losses to the training of the stock meta-architecture that it precedes.

    A subclass defines what to record of the student's heads, and how to read the records.

    Attributes:
        stock: the stock meta-architecture, whose checkpoints it loads and saves.
        objective: computes the distillation losses.
        adapters: modules that train beside the student and are no part of it: neither "model" of a
            checkpoint nor an exported student has them.
        levels: names of the student's and the teacher's feature maps that are compared.
        teacher_levels: names of the teacher's maps that its heads read or that are compared.
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
        self.class_map = None
        if self.compares_logits:
            self._check_heads(methods)
            self.class_map = self._map_classes(distillation.get("classes", ()), methods)
        on_features = self.objective.methods_on("features")
        self.levels = match_levels(self, self.teacher.model) if on_features else []
        self._crops = bool(self.levels) and have_equal_strides(
            self, self.teacher.model, self.levels
        )
        self.teacher_levels = {name for _, name in self.levels}
        if self.compares_logits:
            self.teacher_levels.update(self._logit_levels())
        self._is_order_checked = False
        channels = self._channels() if self.levels else ()
        self.adapters = self.objective.build_adapters(*channels)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "distillation": distillation_from_config(cfg)}

    def _channels(self) -> list[list[int]]:
        """Return the channels of the student's and the teacher's compared maps."""
        names = zip(*self.levels, strict=True)
        shapes = [b.output_shape() for b in (self.backbone, self.teacher.model.backbone)]
        return [
            [shape[name].channels for name in of_network]
            for shape, of_network in zip(shapes, names, strict=True)
        ]

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Run the stock model; in training, add the losses of the methods to its own.

        Without gradients (Detectron2's PreciseBN, for example) the teacher does not run, and no
        pictures are drawn.
        """
        if self.training and not torch.is_grad_enabled():
            return self._without_pictures(batched_inputs)
        if not self._distils():
            return super().forward(batched_inputs)
        sources = self._recorded() if self.compares_logits else {}
        log_difference = None if self.teacher.is_prepared else self._prepare_teacher(batched_inputs)
        begun = self._begin_features(batched_inputs)
        with record(backbone=self.backbone, **sources) as calls:
            losses = super().forward(batched_inputs)
        teacher_features = begun()
        if log_difference is not None:
            log_difference(calls, teacher_features)
        losses.update(self._distill(calls, batched_inputs, teacher_features))
        return losses

    def _begin_features(
        self, batched_inputs: list[dict[str, Any]]
    ) -> Callable[[], dict[str, Tensor]]:
        return self.teacher.begin_features(batched_inputs, self.input_format, self.teacher_levels)

    def look_ahead(self, batched_inputs: list[dict[str, Any]]) -> None:
        """Start the teacher's features of a batch that `forward` will get after the present one.

        To be called in a stream that has the images, under the autocast of the forward pass, which
        takes the features if it gets the same image tensors. Nothing is started in evaluation,
        without gradients or methods, or before the first batch has prepared the teacher.

        On a GPU this holds one more set of the teacher's maps, `teacher_levels` alone. For 8 images
        of 800 x 1333, padded to 800 x 1344, and the levels p2 to p5 of an FPN with 256 channels
        these are 8 x 256 x (800 x 1344 / 16) x (1 + 1/4 + 1/16 + 1/64) values: 730 MB in float32,
        half of it in half precision. What its backbone allocates beside them is free again before
        the student's activations are there.
        """
        is_on = self._distils() and torch.is_grad_enabled() and self.teacher.ahead
        if is_on and self.teacher.is_prepared:
            self.teacher.look_ahead(batched_inputs, self.input_format, self.teacher_levels)

    def _distils(self) -> bool:
        return self.training and bool(self.objective.methods)

    def _without_pictures(self, batched_inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return the stock losses alone."""
        period, self.vis_period = self.vis_period, 0
        try:
            return super().forward(batched_inputs)
        finally:
            self.vis_period = period

    def _prepare_teacher(
        self, batched_inputs: list[dict[str, Any]]
    ) -> Callable[[dict[str, list[Call]], dict[str, Tensor]], None]:
        """Prepare the teacher, before the student's activations take memory.

        Returns:
            A function that logs how far that changes the outputs for this batch. It takes the
            recorded calls of the student and the features of the prepared teacher.
        """
        before = self.teacher.with_own_heads() if self.compares_logits else self.teacher
        old_features = self._begin_features(batched_inputs)()
        self.teacher.prepare(keep_levels=bool(self.levels))

        def log_difference(calls: dict[str, list[Call]], features: dict[str, Tensor]) -> None:
            outputs = [
                self._teacher_outputs(calls, *of_teacher)
                for of_teacher in ((before, old_features), (self.teacher, features))
            ]
            log_output_difference(*outputs, are_maps=not self.compares_logits)

        return log_difference

    def _teacher_outputs(
        self, calls: dict[str, list[Call]], teacher: DetectorTeacher, features: dict[str, Tensor]
    ) -> list[Tensor]:
        """Return a teacher's logits if methods compare them, else its feature maps."""
        if self.compares_logits:
            return [pair.teacher_logits for pair in self._mapped_pairs(calls, teacher, features)]
        return [features[name] for _, name in self.levels]

    def _distill(
        self,
        calls: dict[str, list[Call]],
        batched_inputs: list[dict[str, Any]],
        teacher_features: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        images, features = calls["backbone"][0].args[0], calls["backbone"][0].output
        pairs = []
        if self.compares_logits:
            pairs = self._mapped_pairs(calls, self.teacher, teacher_features)
            self._check_class_order(pairs[0])
            self._draw(pairs[0], batched_inputs[0])
        maps = (
            [features[name] for name, _ in self.levels],
            [teacher_features[name] for _, name in self.levels],
        )
        size = tuple(images.shape[-2:])
        if self._crops:
            *maps, size = crop_to_common(*maps, size)
        batch = DistillationBatch(
            logit_pairs=pairs,
            student_features=maps[0],
            teacher_features=maps[1],
            boxes=lambda: [
                x["instances"].gt_boxes.tensor.to(images.device) for x in batched_inputs
            ],
            image_sizes=[tuple(x["image"].shape[-2:]) for x in batched_inputs],
            padded_size=size,
        )
        return self.objective(batch, self.adapters)

    def _map_classes(self, classes: Sequence, methods: Iterable[str]) -> ClassMap | None:
        """Check the classes of student and teacher; return the map of those in common, if not all.

        Raises:
            UserError: see `map_classes`.
        """
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
        storage = get_event_storage()
        # Only the main process writes pictures, and clears them from the storage.
        is_due = self.vis_period > 0 and storage.iter % self.vis_period == 0
        if not (is_due and comm.is_main_process()):
            return
        names = [str(i) for i in range(pair.num_classes)]
        # The dataset may have fewer classes than the model.
        known = self.class_map.names if self.class_map else dataset_names(self.dataset)
        names[: len(known)] = known
        image = convert_image_to_rgb(sample["image"].permute(1, 2, 0), self.input_format)
        temperature, bound = self.objective.temperature, self.objective.bound
        picture = picture_of_weights(pair, image, names, temperature=temperature, bound=bound)
        if picture is not None:
            storage.put_image("distill/w_ea", picture.transpose(2, 0, 1))

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


def adapter_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return what a checkpoint holds beside a student, as a checkpointer's keyword arguments."""
    has_adapters = isinstance(model, Distilled) and len(model.adapters) > 0
    return {"helpers": model.adapters} if has_adapters else {}  # the name in checkpoints


def distillation_from_config(cfg: CfgNode) -> dict[str, Any]:
    """Build the argument `distillation` of a distilled meta-architecture."""
    return {
        **method_settings(cfg.DISTILL, DISTILLERS),
        "teacher": build_teacher(cfg) if cfg.DISTILL.METHODS else None,
        "dataset": next(iter(cfg.DATASETS.TRAIN), ""),
        "classes": cfg.DISTILL.CLASSES,
    }

"""A frozen detector that answers what a student's detector is compared with."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.modeling import FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.structures import Boxes
from torch import Tensor, nn

from eakd_det.losses.reduction import at_least_float32
from eakd_det.utils.precision import Precision

from .compiled import CompiledBackbone, check_multiple
from .fuse_norms import fold_detector_norms, freeze
from .winograd import use_winograd


class Teacher:
    """A detector that only answers. No nn.Module, so no student registers, trains or saves it.

    Attributes:
        model: the frozen stock model, in eval mode.
        input_format: its channel order, "RGB" or "BGR".
        is_prepared: whether it is as fast as it is to be; see `prepare`.
        class_names: that its checkpoint has, in the order of its classes; or empty.
        dataset: that its config trains on; or empty.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        input_format: str,
        fast: bool = True,
        precision: Precision | None = None,
        compile_to: int = 0,
        class_names: tuple[str, ...] = (),
        dataset: str = "",
    ):
        """
        Args:
            model: a stock detector with its weights. It is frozen and set to eval mode in place.
            input_format: the channel order that it was trained on.
            fast: whether `prepare` folds norms, takes channels_last, and on a CPU computes wide
                convolutions in tiles.
            precision: that it computes in; None is what is around it.
            compile_to: 0, or what `prepare` compiles the backbone for: images whose height and
                width are padded to multiples of it, so that their shapes are few. The maps are as
                without.
            class_names, dataset: what is known of its training.

        Raises:
            UserError: `compile_to` is no multiple of the backbone's coarsest stride.
        """
        self.model = freeze(model)
        self.input_format = input_format
        self.fast, self.precision, self.compile_to = fast, precision or Precision(), compile_to
        check_multiple(model.backbone, compile_to)
        self.class_names, self.dataset = class_names, dataset
        self.is_prepared = not (fast or compile_to or self.precision.name)
        self._backbone = model.backbone  # or what it is compiled to
        self._stream = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_stream": None}  # no pickle holds a stream of a device

    def prepare(self, *, keep_levels: bool = True) -> None:
        """Make it fast in place, once; what `features` gave before is no longer good for it.

        A caller can so hear it unprepared on a batch before, and hold its weights once only.

        Args:
            keep_levels: whether levels are needed that no ROI is pooled from.
        """
        if self.is_prepared:
            return
        self.is_prepared = True
        device, dtype = self.model.device, self.precision.dtype
        self.precision.warn_if_slow(device)
        if self.fast:
            fold_detector_norms(self.model)
            if dtype is None:
                use_winograd(self.model)
            self.model.to(memory_format=torch.channels_last)
            if not keep_levels:
                _leave_out_last_level(self.model.backbone)
        if dtype is not None:
            for part in self.model.children():  # the pixels' mean stays exact
                part.to(dtype)
        if self.compile_to:
            self._backbone = CompiledBackbone(self.model.backbone, self.compile_to)

    def begin_features(
        self, batched_inputs: list[dict[str, Any]], input_format: str
    ) -> Callable[[], dict[str, Tensor]]:
        """Start `features`, on a GPU in a stream beside what is computed until they are asked for.

        Returns:
            A function that gives them; on other devices it computes them.
        """
        if self.model.device.type != "cuda":
            return lambda: self.features(batched_inputs, input_format)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.model.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.model.device))
        with torch.cuda.stream(self._stream):
            features = self.features(batched_inputs, input_format)

        def finish() -> dict[str, Tensor]:
            stream = torch.cuda.current_stream(self.model.device)
            stream.wait_stream(self._stream)
            for x in features.values():  # their memory is not reused while this stream reads it
                x.record_stream(stream)
            return features

        return finish

    @torch.no_grad()
    def features(
        self, batched_inputs: list[dict[str, Any]], input_format: str
    ) -> dict[str, Tensor]:
        """Backbone features of the student's raw images, normalised and padded the teacher's way.

        Args:
            batched_inputs: the student's, with its raw images.
            input_format: their channel order, "RGB" or "BGR" where the teacher's is the other.

        Returns:
            FPN level -> (B, channels, H, W), in the teacher's precision.
        """
        is_other = input_format != self.input_format
        images = [x["image"].flip(0) if is_other else x["image"] for x in batched_inputs]
        pixels = self.model.preprocess_image([{"image": image} for image in images]).tensor
        if self.is_prepared:
            layout = torch.channels_last if self.fast else torch.preserve_format
            pixels = pixels.to(self.precision.dtype or pixels.dtype, memory_format=layout)
        with self._context():
            return self._backbone(pixels)

    @torch.no_grad()
    def roi_logits(self, features: dict[str, Tensor], boxes: list[Boxes], stage: int = 0) -> Tensor:
        """Class logits, (R, K + 1), of the given boxes of each image (absolute pixels).

        A teacher with fewer stages than `stage` answers with its last. ROIs are pooled in float32,
        since a pooler rounds the boxes to the precision of the maps.
        """
        heads = self.model.roi_heads
        maps = [at_least_float32(features[level]) for level in heads.box_in_features]
        pooled = heads.box_pooler(maps, boxes)
        box_heads, predictors = heads.box_head, heads.box_predictor
        if isinstance(predictors, nn.ModuleList):
            stage = min(stage, len(predictors) - 1)
            box_heads, predictors = box_heads[stage], predictors[stage]
        with self._context():
            if self.is_prepared and self.precision.dtype is not None:
                pooled = pooled.to(self.precision.dtype)
            logits, _ = predictors(box_heads(pooled))
        return logits

    @torch.no_grad()
    def anchor_logits(self, features: dict[str, Tensor]) -> Tensor:
        """A RetinaNet's class logits of all anchors, (B, anchors, K), finest level first."""
        model, head = self.model, self.model.head
        with self._context():
            logits = [
                head.cls_score(head.cls_subnet(features[level])) for level in model.head_in_features
            ]
        (logits,) = model._transpose_dense_predictions([logits], [model.num_classes])
        return torch.cat(logits, dim=1)

    def _context(self) -> AbstractContextManager:
        """Its precision; before it is prepared, that of the student around it."""
        return self.precision.context(self.model.device) if self.is_prepared else nullcontext()


def _leave_out_last_level(backbone: nn.Module) -> None:
    """Leave out the level that an FPN adds for the RPN alone."""
    if isinstance(backbone, FPN) and isinstance(backbone.top_block, LastLevelMaxPool):
        backbone.top_block = None
        backbone._out_features = backbone._out_features[:-1]

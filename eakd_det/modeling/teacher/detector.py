"""A frozen detector whose features and logits a student's detector is compared with."""

import operator
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eakd_det.data.class_names import known_names
from eakd_det.modeling.backbone.fpn import leave_out_last_level
from eakd_det.modeling.recorder import record
from eakd_det.utils.cuda_graphs import CudaCapture
from eakd_det.utils.errors import UserError
from eakd_det.utils.precision import Precision

from .compiled import CompiledBackbone, check_compiled
from .fuse_norms import fuse_detector_norms
from .heads import TeacherHeads
from .side_stream import SideStream


class DetectorTeacher(TeacherHeads):
    """FrozenTeacher that is a stock detector.

    Attributes:
        input_format: its channel order, "RGB" or "BGR".
        class_names: those in its checkpoint, in the order of its classes; or empty.
        dataset: the one that its config trains on; or empty.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        input_format: str,
        fast: bool = True,
        precision: Precision | None = None,
        compile_to: int = 0,
        ahead: bool = True,
        cuda_graphs: bool = False,
        class_names: tuple[str, ...] = (),
        dataset: str = "",
    ):
        """
        Args:
            model, fast, precision: see FrozenTeacher.
            input_format: the channel order that it was trained on.
            compile_to: if not 0, `prepare` compiles the backbone for images whose height and width
                are padded to multiples of it, so that there are few shapes. The maps are the same.
            ahead: whether `look_ahead` may be called.
            cuda_graphs: on a GPU, whether a CUDA graph of each shape replays the compiled backbone.
            class_names, dataset: known facts of its training.

        Raises:
            UserError: `compile_to` is no multiple of the backbone's coarsest stride, or 0 with
                `cuda_graphs`.
        """
        super().__init__(model, fast=fast, precision=precision)
        check_compiled(model.backbone, compile_to, cuda_graphs=cuda_graphs)
        self.input_format, self.compile_to = input_format, compile_to
        self.cuda_graphs = cuda_graphs
        self.class_names, self.dataset = class_names, dataset
        self.is_prepared = self.is_prepared and not compile_to
        self._keeps_levels = True
        self._recorded: list[str] = []
        self._backbone = model.backbone  # replaced by `prepare` if it is compiled
        self.ahead, self._stream = ahead, SideStream()
        # Images and features of `look_ahead`: of the batch that is trained on, and of the next.
        self._started: deque[tuple[list[Tensor], Callable]] = deque(maxlen=2)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_started": deque(maxlen=2)}  # a copy computes its features anew

    def record_outputs(self, names: list[str]) -> None:
        """Let `features` have the outputs of modules, too, by their names.

        Norms that are named are not fused.

        Args:
            names: of modules in the backbone, each called once.

        Raises:
            UserError: the backbone will be compiled, in which modules are not called one by one.
        """
        if self.compile_to:
            raise UserError(
                "DISTILL.FEATURES records modules of the teacher, which are not called one by one "
                "in a compiled backbone: set TEACHER.COMPILE to 0."
            )
        self._recorded = names

    def names_of(self, number: int) -> tuple[str, ...]:
        """Return the names of its classes if that many are known, else nothing."""
        return known_names(self.class_names, self.dataset, number)

    def prepare(
        self,
        outputs: Callable[[], Sequence[Tensor]] | None = None,
        *,
        keep_levels: bool = True,
    ) -> None:
        """FrozenTeacher.prepare, which also compiles the backbone. Features from before are stale.

        Args:
            outputs: see FrozenTeacher.
            keep_levels: whether levels are needed that no ROI is pooled from. If not, a fast
                teacher leaves out the level that an FPN adds for the RPN.
        """
        self._keeps_levels = keep_levels
        super().prepare(outputs)
        self._stream.wait(self.device)  # for the weights, since a look-ahead waits for copies alone

    def look_ahead(
        self, batched_inputs: list[dict[str, Any]], input_format: str, levels: Collection[str]
    ) -> None:
        """Start the features that `begin_features` will return for these very images.

        On a GPU they are computed in a stream beside the student's, which waits for nothing but the
        current stream: that of the images' copies. Other devices compute them at once.

        Args:
            batched_inputs, input_format: see `features`.
            levels: names of the maps that are kept.
        """
        images = [x["image"] for x in batched_inputs]
        self._started.append((images, self._start(batched_inputs, input_format, levels)))

    def begin_features(
        self, batched_inputs: list[dict[str, Any]], input_format: str, levels: Collection[str]
    ) -> Callable[[], dict[str, Tensor]]:
        """Start `features`, on a GPU in a stream beside the student's, if no `look_ahead` has.

        Args: those of `look_ahead`.

        Returns:
            A function that returns the features. On other devices it computes them.
        """
        images = [x["image"] for x in batched_inputs]
        for i, (known, finish) in enumerate(self._started):
            if len(known) == len(images) and all(map(operator.is_, known, images)):
                del self._started[i]
                return finish
        if self.device.type != "cuda":
            return lambda: self._start(batched_inputs, input_format, levels)()
        return self._start(batched_inputs, input_format, levels)

    def _start(
        self, batched_inputs: list[dict[str, Any]], input_format: str, levels: Collection[str]
    ) -> Callable[[], dict[str, Tensor]]:
        def compute() -> dict[str, Tensor]:
            features = self.features(batched_inputs, input_format)
            return {name: x for name, x in features.items() if name in levels}

        images = [x["image"] for x in batched_inputs]
        return self._stream.start(compute, images, self.device)

    @torch.no_grad()
    def features(
        self, batched_inputs: list[dict[str, Any]], input_format: str
    ) -> dict[str, Tensor]:
        """Return backbone features of raw images, normalised and padded by the teacher.

        Args:
            batched_inputs: those of the student.
            input_format: their channel order, "RGB" or "BGR"; flipped if the teacher's is another.

        Returns:
            FPN level -> (B, channels, H, W), in the teacher's precision; and the outputs of the
            modules of `record_outputs` by their names.
        """
        for height, width in (x["image"].shape[-2:] for x in batched_inputs):
            self.check_size(height, width)
        is_other = input_format != self.input_format
        images = [x["image"].flip(0) if is_other else x["image"] for x in batched_inputs]
        pixels = self.model.preprocess_image([{"image": image} for image in images]).tensor
        modules = {name: self.model.get_submodule(name) for name in self._recorded}
        with self.context(), record(**modules) as calls:
            levels = self._backbone(self._input(pixels))
        return {**levels, **{name: calls[name][0].output for name in modules}}

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError if images of a size are larger than the square that it pads to."""
        side = self.model.backbone.padding_constraints.get("square_size", 0)
        if side and max(height, width) > side:
            raise UserError(
                f"Images of up to {width} x {height} pixels are larger than the teacher's, which "
                f"pads to {side} x {side} (square_pad of its backbone): set INPUT.MAX_SIZE_TRAIN "
                f"to {side}, or square_pad to 0 in its config."
            )

    def _optimize(self) -> None:
        super()._optimize()
        if self.fast and not self._keeps_levels:
            leave_out_last_level(self.model.backbone)
        if self.compile_to:
            capture = CudaCapture if self.cuda_graphs and self.device.type == "cuda" else None
            self._backbone = CompiledBackbone(self.model.backbone, self.compile_to, capture)

    def _fuse_norms(self) -> None:
        fuse_detector_norms(self.model, keep=self._recorded)

    def _cast(self, dtype: torch.dtype) -> None:
        for part in self.model.children():  # mean and std of the pixels stay exact
            part.to(dtype)

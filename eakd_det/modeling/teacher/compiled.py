"""Compilation of a frozen backbone for images padded to few shapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eakd_det.modeling.backbone.timm import TimmBackbone
from eakd_det.utils.cuda_graphs import CudaCapture, Graphs
from eakd_det.utils.errors import UserError

MOST_SHAPES = 64  # of padded images, each with compiled code of its own

# Layers of attention, of squeeze and excitation: they read the padded area.
NOT_CONVOLUTIONAL = (nn.Linear, nn.MultiheadAttention, nn.AdaptiveAvgPool2d)


class CompiledBackbone:
    """A frozen backbone compiled for padded images, with the same maps as without padding.

    Inputs and outputs of every convolution are set to zero in the padded area, as a convolution's
    own padding is, and the maps are cropped. On a GPU, a CUDA graph may replay the compiled code of
    each padded shape.
    """

    def __init__(
        self,
        backbone: nn.Module,
        multiple: int,
        capture: Callable[[torch.device], CudaCapture] | None = None,
    ):
        """
        Args:
            backbone: a convolutional network, only called through this object from here on.
            multiple: of the images' height and width; see `check_compiled`.
            capture: CudaCapture, which replays graphs; None calls the compiled code.
        """
        self.multiple = multiple
        self.strides = _strides(backbone)
        self.backbone = backbone
        self.capture = capture
        self._compiled: Callable[..., dict[str, Tensor]] | None = None
        self._graphs: Graphs | None = None
        self._outside = torch.empty(0)
        for conv in [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]:
            conv.register_forward_pre_hook(self._clear_input)
            conv.register_forward_hook(self._clear_output)

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps of pixels (B, 3, H, W), of the sizes that H and W give."""
        height, width = pixels.shape[-2:]
        pixels = F.pad(pixels, (0, -width % self.multiple, 0, -height % self.multiple))
        outside = pixels.new_ones(1, 1, *pixels.shape[-2:], dtype=torch.bool)
        outside[..., :height, :width] = False
        with self._features(pixels, outside) as features:
            cropped = {
                name: x[..., : -(-height // stride), : -(-width // stride)]
                for name, x in features.items()
                for stride in [self.strides[name]]
            }
            # The next replay overwrites the maps, which may be read until after it.
            return cropped if self.capture is None else {n: x.clone() for n, x in cropped.items()}

    @contextmanager
    def _features(self, pixels: Tensor, outside: Tensor) -> Iterator[dict[str, Tensor]]:
        """Compute the maps of padded pixels, which are valid in the with-block."""
        if self.capture is None:
            yield self._run_compiled(pixels, outside)
            return
        if self._graphs is None:
            self._graphs = Graphs(
                self._run_compiled,
                self.capture(pixels.device),
                most=MOST_SHAPES,
                key="TEACHER.CUDA_GRAPHS",
            )
        with self._graphs(pixels, outside) as features:
            yield features

    def _run_compiled(self, pixels: Tensor, outside: Tensor) -> dict[str, Tensor]:
        if self._compiled is None:
            self._compiled = torch.compile(self._run, dynamic=False)
        # torch.compile's argument recompile_limit is newer than the oldest torch; all have this
        # setting.
        config = torch._dynamo.config
        with config.patch(cache_size_limit=max(MOST_SHAPES, config.cache_size_limit)):
            return self._compiled(pixels, outside)

    def _run(self, pixels: Tensor, outside: Tensor) -> dict[str, Tensor]:
        self._outside = outside  # a compiled argument, so that a new tensor compiles nothing anew
        return self.backbone(pixels)

    def _clear_input(self, _: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        return (self._clear(x),)

    def _clear_output(self, _: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
        return self._clear(output)  # a max pooling may read it

    def _clear(self, x: Tensor) -> Tensor:
        stride = self._outside.shape[-1] // x.shape[-1]
        return x.masked_fill(self._outside[..., ::stride, ::stride], 0)

    def __getstate__(self) -> dict[str, Any]:
        # Compiled code and graphs cannot be pickled.
        return {**vars(self), "_compiled": None, "_graphs": None}


def check_compiled(backbone: nn.Module, multiple: int, *, cuda_graphs: bool) -> None:
    """Check that images padded to multiples of a size have the same maps, with whole positions.

    Args:
        multiple: 0 if the backbone is not compiled.
        cuda_graphs: whether CUDA graphs replay compiled code.

    Raises:
        UserError: they have not, the backbone is not convolutional, or there is no compiled code.
    """
    if multiple and any(isinstance(module, TimmBackbone) for module in backbone.modules()):
        raise UserError(
            "TEACHER.COMPILE pads images, whose maps are the same for convolutions alone, but "
            "models of timm, such as the teacher's backbone, may average over maps: set it to 0."
        )
    for name, module in backbone.named_modules() if multiple else ():
        if isinstance(module, NOT_CONVOLUTIONAL):
            raise UserError(
                f"TEACHER.COMPILE pads images, whose maps are the same for convolutions alone, but "
                f"the teacher's backbone has a {type(module).__name__} ({name}): set it to 0."
            )
    stride = max(backbone.size_divisibility, *_strides(backbone).values())
    if multiple % stride:
        raise UserError(
            f"TEACHER.COMPILE: {multiple} must be a multiple of {stride}, the coarsest stride of "
            "the teacher's backbone."
        )
    if cuda_graphs and not multiple:
        raise UserError(
            "TEACHER.CUDA_GRAPHS needs a compiled backbone: set TEACHER.COMPILE to 128, or "
            "TEACHER.CUDA_GRAPHS to False."
        )


def _strides(backbone: nn.Module) -> dict[str, int]:
    return {name: spec.stride for name, spec in backbone.output_shape().items()}

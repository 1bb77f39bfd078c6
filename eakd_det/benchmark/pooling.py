"""Forward and backward passes of ROI pooling."""

from collections.abc import Callable
from functools import partial

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor

from eakd_det.losses.reduction import at_least_float32
from eakd_det.modeling.poolers import POOLER_BACKENDS, use_sparse_pooling

from .bench import Bench
from .measure import built

# Images, height, width, ROIs per image, channels and sampling ratio.
CPU_POOLING = {
    "2 x 480 x 640, 512 ROIs": (2, 480, 640, 512, 256, 0),
    "8 x 96 x 96, 128 ROIs": (8, 96, 96, 128, 64, 0),
}
GPU_POOLING = {"8 x 800 x 1333, 512 ROIs": (8, 800, 1333, 512, 256, 0)}
STRIDES = (4, 8, 16, 32)


def run_pooling(bench: Bench) -> dict[str, dict[str, float]]:
    """Measure the backends on a CPU, and layouts and dtypes of the maps on a GPU, by size."""
    results = {}
    for size, numbers in (GPU_POOLING if bench.on_gpu else CPU_POOLING).items():
        make = partial(gpu_pooling, device=bench.device) if bench.on_gpu else cpu_pooling
        title = f"ROI pooling, {size}"
        results[size] = bench.add(title, built(make(*numbers)), title=title, base="torchvision")
    return results


def cpu_pooling(
    number: int, height: int, width: int, rois: int, channels: int, sampling: int
) -> dict[str, Callable[[], object]]:
    """Build a pass of each of POOLER_BACKENDS on the same four maps and boxes."""
    maps, boxes = _inputs(number, height, width, rois, channels, torch.device("cpu"))
    poolers = {name: _pooler(sampling) for name in POOLER_BACKENDS}
    use_sparse_pooling(poolers["sparse"])
    return {
        name: lambda pooler=pooler: pooler(maps, boxes).sum().backward()
        for name, pooler in poolers.items()
    }


def gpu_pooling(
    number: int,
    height: int,
    width: int,
    rois: int,
    channels: int,
    sampling: int,
    *,
    device: torch.device,
) -> dict[str, Callable[[], object]]:
    """Build passes of torchvision's pooling, which is that of every POOLER_BACKEND on a GPU.

    Maps are contiguous or channels_last in float32, or in bfloat16, which are cast as a teacher's.
    """
    maps, boxes = _inputs(number, height, width, rois, channels, device)
    pooler = _pooler(sampling)
    variants = {
        "torchvision": maps,
        "torchvision_channels_last": [_leaf(x, memory_format=torch.channels_last) for x in maps],
        "torchvision_bf16_maps": [_leaf(x, dtype=torch.bfloat16) for x in maps],
    }

    def run(maps: list[Tensor]) -> None:
        pooler([at_least_float32(x) for x in maps], boxes).sum().backward()

    return {name: lambda maps=maps: run(maps) for name, maps in variants.items()}


def _inputs(
    number: int, height: int, width: int, rois: int, channels: int, device: torch.device
) -> tuple[list[Tensor], list[Boxes]]:
    torch.manual_seed(0)
    maps = [torch.randn(number, channels, height // s, width // s) for s in STRIDES]
    size = torch.tensor([width, height])
    corners = torch.rand(number, rois, 2) * size * 0.7
    extents = 10 + torch.rand(number, rois, 2) * size * 0.6
    boxes = torch.cat([corners, corners + extents], dim=2).to(device)
    return [_leaf(x, device=device) for x in maps], [Boxes(x) for x in boxes]


def _leaf(x: Tensor, **options) -> Tensor:
    return x.detach().to(**options).requires_grad_()


def _pooler(sampling: int) -> ROIPooler:
    return ROIPooler(7, [1 / s for s in STRIDES], sampling, "ROIAlignV2")

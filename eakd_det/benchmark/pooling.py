"""Forward and backward passes of ROI pooling on the CPU for timing."""

from collections.abc import Callable

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from eakd_det.modeling.poolers import POOLER_BACKENDS, use_sparse_pooling

# Images, height, width, ROIs per image, channels and sampling ratio.
POOLING = {
    "2 x 480 x 640, 512 ROIs": (2, 480, 640, 512, 256, 0),
    "8 x 96 x 96, 128 ROIs": (8, 96, 96, 128, 64, 0),
}


def pooling_to_time(
    number: int, height: int, width: int, rois: int, channels: int, sampling: int
) -> dict[str, Callable[[], object]]:
    """Build a pass of each of POOLER_BACKENDS on the same four maps and boxes, for POOLING."""
    torch.manual_seed(0)
    strides = (4, 8, 16, 32)
    maps = [torch.randn(number, channels, height // s, width // s) for s in strides]
    maps = [x.requires_grad_() for x in maps]
    size = torch.tensor([width, height])
    corners = torch.rand(number, rois, 2) * size * 0.7
    extents = 10 + torch.rand(number, rois, 2) * size * 0.6
    boxes = [Boxes(x) for x in torch.cat([corners, corners + extents], dim=2)]
    poolers = {
        name: ROIPooler(7, [1 / s for s in strides], sampling, "ROIAlignV2")
        for name in POOLER_BACKENDS
    }
    use_sparse_pooling(poolers["sparse"])
    return {
        name: lambda pooler=pooler: pooler(maps, boxes).sum().backward()
        for name, pooler in poolers.items()
    }

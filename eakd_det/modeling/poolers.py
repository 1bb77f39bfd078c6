"""ROI pooling by MODEL.ROI_HEADS.POOLER_BACKEND, and of a teacher on the student's boxes."""

from detectron2.config import CfgNode
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn

from eakd_det.layers.roi_align import sparse_roi_align
from eakd_det.utils.errors import UserError

POOLER_BACKENDS = ("torchvision", "sparse")


class SparseROIAlign(ROIAlign):
    """ROIAlign as a sparse product on the CPU; the stock layer on other devices."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool as the stock layer does, with the boxes in the dtype of the features."""
        if input.device.type != "cpu":
            return super().forward(input, rois)
        return sparse_roi_align(
            input,
            rois.to(input.dtype),
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
        )


def use_sparse_pooling(model: nn.Module) -> None:
    """Replace every ROIAlign in a detector's poolers of boxes and masks by SparseROIAlign.

    The model is changed in place; its state_dict stays the same. Poolers with another POOLER_TYPE
    (ROIPool, ROIAlignRotated) are not changed.
    """
    for pooler in [m for m in model.modules() if isinstance(m, ROIPooler)]:
        for level, stock in enumerate(pooler.level_poolers):
            if type(stock) is ROIAlign:
                pooler.level_poolers[level] = SparseROIAlign(
                    stock.output_size, stock.spatial_scale, stock.sampling_ratio, stock.aligned
                )


def pool_as_configured(cfg: CfgNode, *models: nn.Module) -> None:
    """Use the ROI pooling of MODEL.ROI_HEADS.POOLER_BACKEND in detectors that are on the CPU.

    Raises:
        UserError: the backend is unknown.
    """
    backend = cfg.MODEL.ROI_HEADS.POOLER_BACKEND
    if backend not in POOLER_BACKENDS:
        raise UserError(
            f"MODEL.ROI_HEADS.POOLER_BACKEND: {backend!r} is unknown; choose from "
            f"{', '.join(POOLER_BACKENDS)}."
        )
    for model in models:
        if backend == "sparse" and model.device.type == "cpu":
            use_sparse_pooling(model)


def assign_alike(*poolers: nn.Module) -> bool:
    """Return whether poolers assign each box to the same level."""
    if not all(isinstance(p, ROIPooler) for p in poolers):
        return False
    rules = [(p.min_level, p.max_level, p.canonical_level, p.canonical_box_size) for p in poolers]
    return len(set(rules)) == 1


def pool(
    pooler: nn.Module, maps: list[Tensor], boxes: list[Boxes], level_boxes: list[Tensor] | None
) -> Tensor:
    """Pool ROIs with `pool_assigned` if their levels are known, else with the pooler."""
    if level_boxes is None:
        return pooler(maps, boxes)
    return pool_assigned(pooler, maps, boxes, level_boxes)


def pool_assigned(
    pooler: ROIPooler, maps: list[Tensor], boxes: list[Boxes], level_boxes: list[Tensor]
) -> Tensor:
    """Pool ROIs as the stock pooler does, without its synchronisations with the device.

    Args:
        pooler: of the teacher.
        maps: of each level, (B, channels, H, W).
        boxes: of each image.
        level_boxes: the same boxes, as a pooler of the student that assigns alike has assigned
            them: what it has pooled on each level, (R of the level, 5).

    Returns:
        (R, channels, height, width).
    """
    rule = pooler.min_level, pooler.max_level, pooler.canonical_box_size, pooler.canonical_level
    # Each level has its boxes in their order.
    order = assign_boxes_to_levels(boxes, *rule).argsort(stable=True)
    parts = order.split([len(x) for x in level_boxes])
    output = maps[0].new_empty(len(order), maps[0].shape[1], *pooler.output_size)
    for pool, x, rois, part in zip(pooler.level_poolers, maps, level_boxes, parts, strict=True):
        output.index_put_((part,), pool(x, rois))
    return output

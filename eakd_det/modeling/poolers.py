"""ROI pooling by MODEL.ROI_HEADS.POOLER_BACKEND: torchvision's ROIAlign, or ours on the CPU."""

from detectron2.config import CfgNode
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
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

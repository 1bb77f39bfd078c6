"""The choice of MODEL.ROI_HEADS.POOLER_BACKEND: torchvision's ROIAlign, or ours on the CPU."""

from detectron2.config import CfgNode
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from eakd_det.layers.roi_align import sparse_roi_align
from eakd_det.utils.errors import UserError

POOLER_BACKENDS = ("torchvision", "sparse")


class SparseROIAlign(ROIAlign):
    """Detectron2's ROIAlign, on the CPU as a sparse product; on other devices the stock one."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """As the stock layer, which takes the boxes in the dtype of the features, too."""
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
    """Put SparseROIAlign in place of every ROIAlign of a detector's poolers, of boxes and masks.

    The model is changed in place, its state_dict is not. A pooler with another POOLER_TYPE
    (ROIPool, ROIAlignRotated) stays as it is.
    """
    for pooler in [m for m in model.modules() if isinstance(m, ROIPooler)]:
        for level, stock in enumerate(pooler.level_poolers):
            if type(stock) is ROIAlign:
                pooler.level_poolers[level] = SparseROIAlign(
                    stock.output_size, stock.spatial_scale, stock.sampling_ratio, stock.aligned
                )


def pool_as_configured(cfg: CfgNode, *models: nn.Module) -> None:
    """Give detectors the ROI pooling of MODEL.ROI_HEADS.POOLER_BACKEND, if they are on the CPU.

    Raises:
        UserError: there is no such backend.
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

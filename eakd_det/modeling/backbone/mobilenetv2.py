"""MobileNetV2 (Sandler et al., CVPR 2018, arXiv 1801.04381) with an FPN, on torchvision's model."""

from functools import partial

import torchvision
from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from torch import Tensor

from .fpn import build_fpn

# Level -> index of the last block of its stride, its output channels, and the stride.
LEVELS = {"m2": (3, 24, 4), "m3": (6, 32, 8), "m4": (13, 96, 16), "m5": (17, 320, 32)}


class MobileNetV2(Backbone):
    """Convolutions of torchvision's MobileNetV2, without the last 1 x 1 one.

    State-dict keys are torchvision's ("features."), so that its ImageNet weights fit.
    """

    def __init__(self, *, norm: str, out_features: list[str], freeze_at: int = 0):
        """
        Args:
            norm: name for Detectron2's `get_norm`: "FrozenBN", "BN", "SyncBN", "GN".
            out_features: some of "m2" to "m5", strides 4 to 32.
            freeze_at: number of the last frozen level: 1 freezes the stem, 2 also the blocks up to
                m2, and so on.
        """
        super().__init__()
        whole = torchvision.models.mobilenet_v2(weights=None, norm_layer=partial(get_norm, norm))
        # Blocks after the last level would get no gradient, which DistributedDataParallel awaits.
        self.features = whole.features[: 1 + max(LEVELS[name][0] for name in out_features)]
        self._out_features = list(out_features)
        self._out_feature_strides = {name: LEVELS[name][2] for name in LEVELS}
        self._out_feature_channels = {name: LEVELS[name][1] for name in LEVELS}
        last_frozen = {0: -1, 1: 0, 2: 3, 3: 6, 4: 13, 5: 17}[freeze_at]
        for block in self.features[: last_frozen + 1]:
            block.requires_grad_(False)
            FrozenBatchNorm2d.convert_frozen_batchnorm(block)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, H, W) to a dict: level -> (B, channels, H / stride, W / stride)."""
        ends = {LEVELS[name][0]: name for name in self._out_features}
        outputs = {}
        for i, block in enumerate(self.features):
            x = block(x)
            if i in ends:
                outputs[ends[i]] = x
        return outputs


@BACKBONE_REGISTRY.register()
def build_mobilenetv2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a MobileNetV2 with an FPN from Detectron2's config keys.

    MODEL.FPN.IN_FEATURES are its levels (m2 to m5), MODEL.RESNETS.NORM is its norm, and
    MODEL.BACKBONE.FREEZE_AT is `freeze_at`.
    """
    bottom_up = MobileNetV2(
        norm=cfg.MODEL.RESNETS.NORM,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
    return build_fpn(cfg, bottom_up)

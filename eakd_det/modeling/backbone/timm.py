"""Backbones of timm by name, with an FPN."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from torch import Tensor, nn

from eakd_det.utils.errors import UserError

from .fpn import build_fpn, build_retinanet_fpn
from .timm_maps import LEVELS, FeatureMaps, create_features

NORMS = ("BN", "FrozenBN", "SyncBN")


class TimmBackbone(Backbone):
    """Feature maps of a timm model, named as those of Detectron2's ResNets by their strides.

    State-dict keys are those of timm's features_only model, under "features.".
    """

    def __init__(
        self, name: str, *, out_features: Sequence[str], norm: str = "BN", freeze_at: int = 0
    ):
        """
        Args:
            name: a model of timm, with or without the tag of its weights ("regnetx_004.tv2_in1k").
            out_features: some of LEVELS.
            norm: "BN" keeps the model's own norms. "FrozenBN" freezes its batch norms and "SyncBN"
                synchronises them; norms of other kinds, such as LayerNorm, are trained.
            freeze_at: number of the last frozen level: 1 freezes the stem, 2 also the stage of
                res2, and so on. Batch norms of frozen levels are FrozenBN.

        Raises:
            UserError: see `create_features` and `FeatureMaps`, or there is no such norm.
        """
        super().__init__()
        if norm not in NORMS:
            raise UserError(
                f"MODEL.RESNETS.NORM {norm!r}: a timm backbone has one of {', '.join(NORMS)}."
            )
        found = FeatureMaps(name)
        maps = found.select(out_features)
        self.features = create_features(name, out_indices=[x.out_index for x in maps.values()])
        self._out_features = list(maps)
        self._out_feature_strides = {level: LEVELS[level] for level in maps}
        self._out_feature_channels = {level: x.channels for level, x in maps.items()}
        self._is_channels_last = [x.is_channels_last(LEVELS[level]) for level, x in maps.items()]
        # What no level depends on would get no gradient, which DistributedDataParallel awaits.
        trained = found.parameters_of(self._out_feature_strides.values())
        frozen = found.first_parameters(freeze_at)
        for key, parameter in self.features.named_parameters():
            parameter.requires_grad_(key in trained - frozen)
        _freeze_norms(self.features, whole=norm == "FrozenBN")
        if norm == "SyncBN":
            from timm.layers import convert_sync_batchnorm

            self.features = convert_sync_batchnorm(self.features)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, H, W) to a dict: level -> (B, channels, H / stride, W / stride)."""
        maps = zip(self._out_features, self.features(x), self._is_channels_last, strict=True)
        return {name: y.permute(0, 3, 1, 2) if is_last else y for name, y, is_last in maps}


class _FrozenNormAct(FrozenBatchNorm2d):
    """FrozenBatchNorm2d with the activation of timm's BatchNormAct2d."""

    act: nn.Module
    drop: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def _freeze_norms(model: nn.Module, *, whole: bool) -> None:
    """Turn batch norms into Detectron2's FrozenBN: all, or those whose weights are not trained."""
    from timm.layers import BatchNormAct2d

    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if not isinstance(norm, nn.BatchNorm2d):
                continue
            if not whole and all(p.requires_grad for p in norm.parameters()):
                continue
            if isinstance(norm, BatchNormAct2d):
                frozen = _FrozenNormAct.convert_frozen_batchnorm(norm)
                frozen.act, frozen.drop = norm.act, norm.drop
            else:
                frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
            setattr(parent, name, frozen)


@BACKBONE_REGISTRY.register()
def build_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build the timm model MODEL.TIMM.NAME with an FPN from Detectron2's config keys.

    MODEL.FPN.IN_FEATURES are its levels (res2 to res5), MODEL.RESNETS.NORM is its norm, and
    MODEL.BACKBONE.FREEZE_AT is `freeze_at`.
    """
    return build_fpn(cfg, _bottom_up(cfg))


@BACKBONE_REGISTRY.register()
def build_retinanet_timm_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build MODEL.TIMM.NAME with the FPN of a RetinaNet; see `build_timm_fpn_backbone`."""
    return build_retinanet_fpn(cfg, _bottom_up(cfg))


def _bottom_up(cfg: CfgNode) -> TimmBackbone:
    if not cfg.MODEL.TIMM.NAME:
        raise UserError(
            "MODEL.TIMM.NAME is empty: name a model of timm, such as regnetx_004, or another "
            "MODEL.BACKBONE.NAME."
        )
    return TimmBackbone(
        cfg.MODEL.TIMM.NAME,
        out_features=cfg.MODEL.FPN.IN_FEATURES,
        norm=cfg.MODEL.RESNETS.NORM,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )

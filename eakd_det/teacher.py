"""The frozen teacher: a whole stock detector, built from its own config."""

from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .checkpoint import load_strictly
from .config import add_distill_config, stock_config
from .errors import UserError


class Teacher:
    """A detector that only answers. No nn.Module, so no student registers, trains or saves it.

    Attributes:
        model: the frozen stock model, in eval mode.
        input_format: its channel order, "RGB" or "BGR".
    """

    def __init__(self, model: nn.Module, *, input_format: str):
        """
        Args:
            model: a stock detector with its weights. It is changed in place: frozen, set to eval
                mode, norms folded into convolutions.
            input_format: the channel order that it was trained on.
        """
        self.model = prepare_for_inference(model)
        self.input_format = input_format

    @torch.no_grad()
    def features(
        self, batched_inputs: list[dict[str, Any]], input_format: str
    ) -> dict[str, Tensor]:
        """Backbone features of the student's raw images, normalised and padded the teacher's way.

        Args:
            batched_inputs: the student's, with its raw images.
            input_format: their channel order, "RGB" or "BGR" where the teacher's is the other.

        Returns:
            FPN level -> (B, channels, H, W).
        """
        is_other = input_format != self.input_format
        images = [x["image"].flip(0) if is_other else x["image"] for x in batched_inputs]
        images = self.model.preprocess_image([{"image": image} for image in images])
        return self.model.backbone(images.tensor)

    @torch.no_grad()
    def roi_logits(self, features: dict[str, Tensor], boxes: list[Boxes], stage: int = 0) -> Tensor:
        """Class logits, (R, K + 1), of the given boxes of each image (absolute pixels).

        A teacher with fewer stages than `stage` answers with its last.
        """
        heads = self.model.roi_heads
        pooled = heads.box_pooler([features[level] for level in heads.box_in_features], boxes)
        box_heads, predictors = heads.box_head, heads.box_predictor
        if isinstance(predictors, nn.ModuleList):
            stage = min(stage, len(predictors) - 1)
            box_heads, predictors = box_heads[stage], predictors[stage]
        logits, _ = predictors(box_heads(pooled))
        return logits

    @torch.no_grad()
    def anchor_logits(self, features: dict[str, Tensor]) -> Tensor:
        """A RetinaNet's class logits of all anchors, (B, anchors, K), finest level first."""
        model, head = self.model, self.model.head
        logits = [
            head.cls_score(head.cls_subnet(features[level])) for level in model.head_in_features
        ]
        (logits,) = model._transpose_dense_predictions([logits], [model.num_classes])
        return torch.cat(logits, dim=1)


def build_teacher(cfg: CfgNode) -> Teacher:
    """The teacher of a run, from TEACHER.CONFIG_FILE and TEACHER.WEIGHTS; see `make_teacher`."""
    return make_teacher(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS, device=cfg.MODEL.DEVICE)


def make_teacher(config_file: str, weights: str, *, device: str = "cpu") -> Teacher:
    """Build a teacher from its config and its checkpoint.

    The random state is left as it was, so that the student trains as it would without a teacher.

    Args:
        config_file: a path, or a name of Detectron2's model zoo.
        weights: any checkpoint that Detectron2 reads.
        device: where it is built; later it follows the student.

    Raises:
        UserError: something is empty or cannot be found, or the weights do not fit.
    """
    cfg = _config(config_file, weights, device)
    with torch.random.fork_rng(devices=[]):
        model = build_model(cfg)
    load_strictly(model, weights, key="TEACHER.WEIGHTS", side="teacher")
    return Teacher(model, input_format=cfg.INPUT.FORMAT)


def teacher_config(cfg: CfgNode) -> CfgNode:
    """The own stock config of a run's teacher, on the student's device.

    Raises:
        UserError: TEACHER.CONFIG_FILE or TEACHER.WEIGHTS is empty, or no such config is found.
    """
    return _config(cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS, cfg.MODEL.DEVICE)


def _config(name: str, weights: str, device: str) -> CfgNode:
    if not name:
        raise UserError(
            "TEACHER.CONFIG_FILE is empty: name the teacher's Detectron2 config, or train without "
            "a teacher and set DISTILL.METHODS to ()."
        )
    if not weights:
        raise UserError(
            f"The teacher {name} has no weights: set TEACHER.WEIGHTS to its trained checkpoint."
        )
    path = name
    if not PathManager.isfile(path):
        try:
            path = model_zoo.get_config_file(name)
        except RuntimeError as error:
            raise UserError(
                f"TEACHER.CONFIG_FILE: {name} is neither a file nor a config of Detectron2's "
                "model zoo."
            ) from error
    cfg = get_cfg()
    add_distill_config(cfg)  # the config of an earlier student can be a teacher's, too
    cfg.merge_from_file(path)
    cfg = stock_config(cfg)
    cfg.MODEL.DEVICE = device
    return cfg


def prepare_for_inference(model: nn.Module) -> nn.Module:
    """Freeze a model in eval mode and fold its batch norms into the convolutions before them."""
    model.eval().requires_grad_(False)
    for conv in [m for m in model.modules() if type(m) is Conv2d]:
        norm = conv.norm
        if isinstance(norm, FrozenBatchNorm2d | nn.BatchNorm2d):
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            conv.norm = None
    return model

"""Backbones of students by name: --student."""

from typing import Any, NamedTuple

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError
from eakd_det.utils.external_models import import_timm, published_pixels

from .choices import Choice, value_of
from .defaults import TIMM_BACKBONES

TIMM = "timm:"  # prefix of the names of timm's models


class Student(NamedTuple):
    """Backbone of a student.

    Attributes:
        kind: of BACKBONES.
        keys: keys of the backbone and their values.
        weights: of ImageNet, which expect RGB images.
    """

    kind: str
    keys: dict[str, Any]
    weights: str


def _resnet(keys: dict[str, Any], weights: str) -> Student:
    # With the values of stock ResNets, which a config may have changed.
    plain = {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "STEM_OUT_CHANNELS": 64, **keys}
    return Student("ResNet", {f"MODEL.RESNETS.{k}": v for k, v in plain.items()}, weights)


# torchvision's ResNet-50 has its stride in the 3 x 3 convolutions.
_R50 = {"DEPTH": 50, "RES2_OUT_CHANNELS": 256, "STRIDE_IN_1X1": False}

STUDENTS = {
    "r18": _resnet({"DEPTH": 18, "RES2_OUT_CHANNELS": 64}, "torchvision://resnet18"),
    "r50": _resnet(_R50, "torchvision://resnet50"),
    "mv2": Student("MobileNetV2", {}, "torchvision://mobilenet_v2"),
}

# Kind -> MODEL.BACKBONE.NAME with the FPN of an R-CNN and, unless there is none, of a RetinaNet.
BACKBONES: dict[str, tuple[str, ...]] = {
    "ResNet": ("build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone"),
    "MobileNetV2": ("build_mobilenetv2_fpn_backbone",),
    "timm": TIMM_BACKBONES,
}
_KINDS = {name: kind for kind, names in BACKBONES.items() for name in names}

_RES, _M = ([f"{letter}{level}" for level in (2, 3, 4, 5)] for letter in ("res", "m"))
# Keys of the four levels of an R-CNN; a RetinaNet's are the same of every kind.
_LEVELS = {
    "ResNet": {"MODEL.RESNETS.OUT_FEATURES": _RES, "MODEL.FPN.IN_FEATURES": _RES},
    "MobileNetV2": {"MODEL.FPN.IN_FEATURES": _M},
    "timm": {"MODEL.FPN.IN_FEATURES": _RES},
}
_FREEZE_AT = {"ResNet": 2, "MobileNetV2": 0, "timm": 2}  # with weights of ImageNet
_PIXELS = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # torchvision's, of RGB images


def student_choices(cfg: CfgNode, name: str) -> list[Choice]:
    """Return the values that give the student of a config another backbone.

    A student that starts from weights starts from the backbone's of ImageNet; one from scratch
    stays from scratch.

    Args:
        cfg: config of the run, before its KEY VALUE pairs.
        name: of STUDENTS, or "timm:NAME" for a model of timm, with or without the tag of its
            weights.

    Raises:
        UserError: there is no such student, it has no published weights to start from, or the
            config's detector cannot have its backbone.
    """
    student, model = _find(name), cfg.MODEL
    before = _KINDS.get(model.BACKBONE.NAME)
    if before is None:
        raise UserError(
            f"--student {name}: the config's student has the backbone {model.BACKBONE.NAME}, and "
            f"only {', '.join(_KINDS)} can be exchanged. Name a config that has one of them."
        )
    is_retina = "RetinaNet" in model.META_ARCHITECTURE
    if is_retina and len(BACKBONES[student.kind]) == 1:
        raise UserError(f"--student {name}: a RetinaNet's backbone can be r18, r50 or timm:NAME.")
    values = {"MODEL.TIMM.NAME": "", **student.keys}
    if model.WEIGHTS:
        mean, std = _pixels(name)
        values |= {"MODEL.WEIGHTS": student.weights, "INPUT.FORMAT": "RGB"}
        values |= {"MODEL.PIXEL_MEAN": mean, "MODEL.PIXEL_STD": std}
    if before != student.kind:
        values["MODEL.BACKBONE.NAME"] = BACKBONES[student.kind][is_retina]
        values |= {} if is_retina else _LEVELS[student.kind]
        values |= {"MODEL.BACKBONE.FREEZE_AT": _FREEZE_AT[student.kind]} if model.WEIGHTS else {}
    return [
        Choice(key, value, f"--student {name}")
        for key, value in values.items()
        if value != value_of(cfg, key)
    ]


def _find(name: str) -> Student:
    if name.startswith(TIMM):
        model = name.removeprefix(TIMM)
        import_timm(model)  # its errors: not installed, no such model
        without_tag = model.partition(".")[0]
        return Student("timm", {"MODEL.TIMM.NAME": without_tag}, f"timm://{model}")
    if name not in STUDENTS:
        raise UserError(
            f"--student: {name!r} is unknown; choose from {', '.join(STUDENTS)}, timm:NAME."
        )
    return STUDENTS[name]


def _pixels(name: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of RGB pixels that the weights of a student expect."""
    return published_pixels(name.removeprefix(TIMM)) if name.startswith(TIMM) else _PIXELS

"""Backbones of students by name: --student."""

from typing import Any, NamedTuple

from detectron2.config import CfgNode

from eakd_det.utils.errors import UserError

from .choices import Choice, value_of


class Student(NamedTuple):
    """Backbone of a student.

    Attributes:
        kind: of KINDS.
        keys: of MODEL.RESNETS.
        weights: of ImageNet, which expect RGB images.
    """

    kind: str
    keys: dict[str, Any]
    weights: str


# Values of stock ResNets, which a config may have changed.
_PLAIN = {"NUM_GROUPS": 1, "WIDTH_PER_GROUP": 64, "STEM_OUT_CHANNELS": 64}
# torchvision's ResNet-50 has its stride in the 3 x 3 convolutions.
_R50 = {"DEPTH": 50, "RES2_OUT_CHANNELS": 256, "STRIDE_IN_1X1": False}

STUDENTS = {
    "r18": Student(
        "ResNet", {**_PLAIN, "DEPTH": 18, "RES2_OUT_CHANNELS": 64}, "torchvision://resnet18"
    ),
    "r50": Student("ResNet", {**_PLAIN, **_R50}, "torchvision://resnet50"),
    "mv2": Student("MobileNetV2", {}, "torchvision://mobilenet_v2"),
}

# MODEL.BACKBONE.NAME -> kind.
KINDS = {
    "build_resnet_fpn_backbone": "ResNet",
    "build_retinanet_resnet_fpn_backbone": "ResNet",
    "build_mobilenetv2_fpn_backbone": "MobileNetV2",
}

_RESNET_LEVELS, _MOBILENET_LEVELS = (
    [f"{letter}{level}" for level in (2, 3, 4, 5)] for letter in ("res", "m")
)
# Keys of a kind of backbone with an FPN of four levels.
_OF_KIND: dict[str, dict[str, Any]] = {
    "ResNet": {
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": _RESNET_LEVELS,
        "MODEL.FPN.IN_FEATURES": _RESNET_LEVELS,
    },
    "MobileNetV2": {
        "MODEL.BACKBONE.NAME": "build_mobilenetv2_fpn_backbone",
        "MODEL.FPN.IN_FEATURES": _MOBILENET_LEVELS,
    },
}
_FREEZE_AT = {"ResNet": 2, "MobileNetV2": 0}  # with weights of ImageNet
_OF_IMAGENET: dict[str, Any] = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}


def student_choices(cfg: CfgNode, name: str) -> list[Choice]:
    """Return the values that give the student of a config another backbone.

    A student that starts from weights starts from the backbone's of ImageNet; one from scratch
    stays from scratch.

    Args:
        cfg: config of the run, before its KEY VALUE pairs.
        name: of STUDENTS.

    Raises:
        UserError: there is no such student, or the config's detector cannot have its backbone.
    """
    if name not in STUDENTS:
        raise UserError(f"--student: {name!r} is unknown; choose from {', '.join(STUDENTS)}.")
    student, model = STUDENTS[name], cfg.MODEL
    before = KINDS.get(model.BACKBONE.NAME)
    if before is None:
        raise UserError(
            f"--student {name}: the config's student has the backbone {model.BACKBONE.NAME}, and "
            f"only {', '.join(KINDS)} can be exchanged. Name a config that has one of them."
        )
    if before != student.kind and "RetinaNet" in model.META_ARCHITECTURE:
        raise UserError(f"--student {name}: a RetinaNet's backbone can be r18 or r50 alone.")
    values = {f"MODEL.RESNETS.{key}": value for key, value in student.keys.items()}
    if model.WEIGHTS:
        values |= {"MODEL.WEIGHTS": student.weights, **_OF_IMAGENET}
    if before != student.kind:
        values |= _OF_KIND[student.kind]
        values |= {"MODEL.BACKBONE.FREEZE_AT": _FREEZE_AT[student.kind]} if model.WEIGHTS else {}
    return [
        Choice(key, value, f"--student {name}")
        for key, value in values.items()
        if value != value_of(cfg, key)
    ]

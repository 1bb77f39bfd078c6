"""Detectors as functions of one image, which torch.jit.trace records."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from torch import Tensor, nn

from eakd_det.utils.errors import UserError

INPUT = "image"
OUTPUTS = ("boxes", "classes", "scores", "masks")  # the last of students with masks

# Branches of these packages that a trace fixes: images are not empty, numbers are finite.
_TRACED_PACKAGES = r"(detectron2|torchvision|torch)(\.|$)"


def check_exportable(cfg: CfgNode) -> None:
    """Raise UserError if a student's output is more, or its input other, than a graph has."""
    name, generator = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PROPOSAL_GENERATOR.NAME
    if name not in ("GeneralizedRCNN", "RetinaNet"):
        reason = f"MODEL.META_ARCHITECTURE is {name}"
    elif cfg.MODEL.KEYPOINT_ON:
        reason = "MODEL.KEYPOINT_ON is set"
    elif name == "GeneralizedRCNN" and generator != "RPN":
        reason = f"MODEL.PROPOSAL_GENERATOR.NAME is {generator}"
    else:
        return
    raise UserError(
        f"--format: {reason}. Graphs are written of Faster, Mask and Cascade R-CNN and RetinaNet; "
        "without --format the weights of any student are exported."
    )


def make_traceable(model: nn.Module, image: Tensor) -> TracingAdapter:
    """Build a module that maps an image to OUTPUTS.

    Args:
        model: stock detector; it is frozen and set to evaluation.
        image: (3, H, W) uint8 in the model's channel order.

    Returns:
        Function of such an image, which gives a tuple of N detections in its pixels, (N, 4) boxes
        [x1, y1, x2, y2], (N,) int64 classes, (N,) scores and, of a model with masks, (N, 28, 28)
        probabilities of the mask within each box.
    """
    model.requires_grad_(False)
    return TracingAdapter(model, [{"image": image}], _detect).eval()


def _detect(model: nn.Module, inputs: list[dict[str, Tensor]]) -> tuple[Tensor, ...]:
    if isinstance(model, GeneralizedRCNN):
        found = model.inference(inputs, do_postprocess=False)[0]  # it would paste the masks
        found = found[found.pred_boxes.nonempty()]
    else:
        found = model(inputs)[0]["instances"]
    outputs = found.pred_boxes.tensor, found.pred_classes, found.scores
    return (*outputs, found.pred_masks[:, 0]) if found.has("pred_masks") else outputs


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silence the warnings of tracing that are known to be harmless; others are shown.

    Tracing warns about each branch in Python. Those of a model or layer of another package than
    Detectron2 are shown, since the check of the exported model may not reach them.
    """
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)  # of TorchScript, in newer releases
        tracer = torch.jit.TracerWarning
        warnings.filterwarnings("ignore", category=tracer, module=_TRACED_PACKAGES)
        warnings.filterwarnings("ignore", "Exporting aten::index operator", UserWarning)
        warnings.filterwarnings("ignore", "torch.meshgrid: in an upcoming release", UserWarning)
        yield

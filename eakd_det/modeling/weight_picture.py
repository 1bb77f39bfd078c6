"""A picture of the samples of one image by their EA weight, from both detectors' answers."""

from collections.abc import Sequence

import numpy as np
import torch

from eakd_det.distillers.methods import EA_MODES, Head
from eakd_det.utils.visualizer import draw_weights


@torch.no_grad()
def picture_of_weights(
    head: Head,
    image: np.ndarray,
    class_names: Sequence[str],
    *,
    temperature: float,
    bound: float | None,
) -> np.ndarray | None:
    """The first image's samples with the highest and lowest w_EA, on that image.

    Args:
        head: the batch's samples.
        image: (H, W, 3), RGB.
        class_names: of the foreground.
        temperature, bound: of the entropies.

    Returns:
        (height, width, 3) uint8, or None where the image has no samples.
    """
    is_first = head.images == 0
    if not is_first.any():
        return None
    pair = (entropy[is_first].cpu() for entropy in head.entropies(temperature))
    scores = [
        (logits.sigmoid() if head.sigmoid else logits.softmax(dim=1)).cpu()
        for logits in (x[is_first].float() for x in (head.student_logits, head.teacher_logits))
    ]
    weight = EA_MODES["full"](*pair, head.num_outcomes, bound)
    boxes = head.first_boxes().cpu().numpy()
    return draw_weights(image, boxes, weight, *scores, [*class_names, "background"])

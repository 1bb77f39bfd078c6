"""A picture of the samples of an image with the highest and lowest EA weight."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from detectron2.data.detection_utils import convert_image_to_rgb
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from eakd_det.distillers import DistillationObjective, LogitPair
from eakd_det.losses import combine_entropies
from eakd_det.utils.visualizer import draw_weights


def put_picture(
    pair: LogitPair,
    image: Tensor,
    objective: DistillationObjective,
    *,
    period: int,
    input_format: str,
    names: Sequence[str],
) -> None:
    """Put `picture_of_weights` into Detectron2's event storage if it is due, in the main process.

    Args:
        pair: of all samples of the batch.
        image: the first, (3, H, W).
        objective: the one whose temperature and bound the entropies have.
        period: iterations from one picture to the next; 0 draws none.
        input_format: channel order of the image.
        names: of the first classes; there may be fewer than the pair has.
    """
    storage = get_event_storage()
    # Only the main process writes pictures, and clears them from the storage.
    if not (period > 0 and storage.iter % period == 0 and comm.is_main_process()):
        return
    shown = [str(i) for i in range(pair.num_classes)]
    shown[: len(names)] = names
    pixels = convert_image_to_rgb(image.permute(1, 2, 0), input_format)
    temperature, bound = objective.temperature, objective.bound
    picture = picture_of_weights(pair, pixels, shown, temperature=temperature, bound=bound)
    if picture is not None:
        storage.put_image("distill/w_ea", picture.transpose(2, 0, 1))


@torch.no_grad()
def picture_of_weights(
    pair: LogitPair,
    image: np.ndarray,
    class_names: Sequence[str],
    *,
    temperature: float,
    bound: float | None,
) -> np.ndarray | None:
    """Draw the first image's samples with the highest and lowest w_EA on that image.

    Args:
        pair: of all samples of the batch.
        image: (H, W, 3), RGB.
        class_names: names of the K classes.
        temperature, bound: those of the entropies.

    Returns:
        (height, width, 3) uint8, or None if the image has no samples.
    """
    assert pair.images is not None and pair.first_boxes is not None, "a pair of a detector"
    is_first = pair.images() == 0
    if not is_first.any():
        return None
    logits = [x[is_first].float() for x in (pair.student_logits, pair.teacher_logits)]
    student, teacher = ((x.sigmoid() if pair.sigmoid else x.softmax(dim=1)).cpu() for x in logits)
    first = replace(pair, student_logits=logits[0], teacher_logits=logits[1])
    of_student, of_teacher = (entropy.cpu() for entropy in first.entropies(temperature))
    weight = combine_entropies(of_student, of_teacher, pair.num_outcomes, bound)
    boxes = pair.first_boxes().cpu().numpy()
    return draw_weights(image, boxes, weight, student, teacher, [*class_names, "background"])

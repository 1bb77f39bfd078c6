"""eakd_det.analysis.gallery."""

import numpy as np
import pytest
import torch
from PIL import Image

from eakd_det.analysis.gallery import COLUMNS, draw_gallery, top_classes
from eakd_det.analysis.objects import Objects
from eakd_det.analysis.samples import Samples

NAMES = ["cat", "dog"]


def test_top_classes():
    logits = torch.tensor([0.75, 0.05, 0.2]).log() + 3
    assert top_classes(logits, NAMES) == "cat: 75 %, background: 20 %"


@pytest.fixture
def objects(tmp_path):
    """Seven boxes of an image that is red in its upper and blue in its lower half."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :, 0] = pixels[20:, :, 2] = 200
    Image.fromarray(pixels).save(tmp_path / "image.png")
    boxes = torch.tensor([[20.0, 4, 30, 10], [20, 28, 30, 36]]).repeat(4, 1)[:7]
    boxes[6] = torch.tensor([50.0, 0, 60, 20])  # at the corner
    scenes = [{"file_name": str(tmp_path / "image.png")}]
    return Objects(
        scenes, torch.zeros(7, dtype=torch.long), boxes, torch.tensor([0, 1, 0, 1, 0, 1, 0])
    )


def _samples(objects, logits):
    return Samples(objects.labels, torch.tensor(logits).repeat(len(objects), 1), torch.zeros(7, 1))


def _draw(objects, chosen):
    teacher, student = _samples(objects, [3.0, 0, 0]), _samples(objects, [0.0, 3, 0])
    weight = torch.arange(7) / 4
    figure = draw_gallery(objects, teacher, student, weight, chosen, NAMES, "title")
    figure.canvas.draw()
    return figure


def test_each_object_has_its_own_crop_and_words(objects):
    figure = _draw(objects, [1, 4, 6])
    shown = [axes for axes in figure.axes if axes.axison]
    assert len(figure.axes) == COLUMNS and len(shown) == 3
    assert [axes.get_title() for axes in shown] == [
        f"{name}: $w_{{EA}}$ {weight}"
        for name, weight in (("dog", "0.25"), ("cat", "1.00"), ("cat", "1.50"))
    ]
    assert shown[0].get_xlabel() == "T  cat: 91 %, dog: 5 %\nS  dog: 91 %, cat: 5 %"
    for axes, channel in zip(shown, (2, 0, 0), strict=True):
        pixels = axes.images[0].get_array()
        assert pixels[..., channel].mean() > 3 * pixels[..., 2 - channel].mean()


def test_boxes_stand_where_they_are_in_the_image(objects):
    for axes, index in zip(_draw(objects, [0, 6]).axes, (0, 6), strict=False):
        x0, y0, x1, y1 = objects.boxes[index].tolist()
        (box,) = axes.patches
        assert (*box.get_xy(), box.get_width(), box.get_height()) == (x0, y0, x1 - x0, y1 - y0)
        left, right, bottom, top = axes.images[0].get_extent()
        assert left <= x0 < x1 <= right <= 60 and 0 <= top <= y0 < y1 <= bottom
        assert axes.images[0].get_array().shape[:2] == (bottom - top, right - left)
        assert np.diff(axes.get_xlim()) == -np.diff(axes.get_ylim())


def test_rows_are_filled_one_after_the_other(objects):
    assert len(_draw(objects, range(7)).axes) == 2 * COLUMNS

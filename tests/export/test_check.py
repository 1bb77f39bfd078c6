"""eakd_det.export.check, of detections given as tensors."""

import re

import pytest
import torch

from eakd_det.export.check import Limits, check_detections
from eakd_det.utils.errors import UserError

LIMITS = Limits(score=0.05, number=5)
IMAGES = {"photo.jpg": torch.zeros(3, 8, 8, dtype=torch.uint8)}
BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 1, 9, 9], [20, 0, 30, 10], [0, 20, 10, 30]])
CLASSES = torch.tensor([0, 1, 0, 2])
SCORES = torch.tensor([0.9, 0.8, 0.8, 0.0505])
MASKS = torch.linspace(0, 1, 4 * 28 * 28).view(4, 28, 28)
FOUND = (BOXES, CLASSES, SCORES, MASKS)


def compare(expected, found, limits=LIMITS):
    return check_detections(lambda _: expected, lambda _: found, IMAGES, limits)


def changed(place, i, value):
    found = [x.clone() for x in FOUND]
    found[place][i] += value
    return tuple(found)


def pick(indices):
    return tuple(x[indices] for x in FOUND)


def test_the_order_does_not_matter():
    assert compare(FOUND, pick([0, 2, 1, 3])) == (4, {"boxes": 0, "scores": 0, "masks": 0})
    assert compare(pick([]), pick([])) == (0, {"boxes": 0, "scores": 0, "masks": 0})
    assert compare(FOUND[:3], FOUND[:3]) == (4, {"boxes": 0, "scores": 0})


def test_differences_within_the_tolerance():
    number, largest = compare(FOUND, changed(0, 1, 0.009))
    assert number == 4 and largest["boxes"] == pytest.approx(0.009, abs=1e-5)
    assert compare(FOUND, changed(2, 0, -9e-4))[1]["scores"] == pytest.approx(9e-4, abs=1e-6)
    assert compare(FOUND, changed(3, 0, 9e-3))[1]["masks"] == pytest.approx(9e-3, abs=1e-6)


@pytest.mark.parametrize(
    "found, text",
    [
        (changed(0, (1, 0), 0.02), "score 0.8000, box [1.00, 1.00, 9.00, 9.00]: the box differs"),
        (changed(0, (1, 0), 0.02), "the box differs by 0.02 pixel"),
        (changed(2, 0, -0.002), "class 0, score 0.9000, box [0.00, 0.00, 10.00, 10.00]: the score"),
        (changed(3, (2, 5, 5), 0.02), "the mask by 0.02"),
        (changed(1, 0, 3), "class 3, score 0.9000, box [0.00, 0.00, 10.00, 10.00]: the exported"),
        (changed(0, 0, 50), "class 0, score 0.9000, box [0.00, 0.00, 10.00, 10.00]: the student"),
        (changed(2, 0, float("nan")), "score nan, box [0.00, 0.00, 10.00, 10.00]: the exported"),
        (changed(0, 0, float("nan")), "box [nan, nan, nan, nan]: the exported model alone has it"),
        (pick([0, 1, 3]), "box [20.00, 0.00, 30.00, 10.00]: the student alone has it"),
        (pick([0, 1, 1, 2, 3]), "[1.00, 1.00, 9.00, 9.00]: the exported model alone has it"),
    ],
)
def test_what_differs_is_listed(found, text):
    with pytest.raises(UserError, match=r"photo.jpg: .*" + re.escape(text)):
        compare(FOUND, found)


def test_rounding_decides_about_the_last_detections():
    """At the least score, and at the largest number of detections."""
    last = pick([0, 1, 2])
    assert compare(FOUND, last)[0] == 3 and compare(last, FOUND)[0] == 3
    with pytest.raises(UserError, match=r"score 0.0505, .*: the student alone has it"):
        compare(FOUND, last, Limits(score=0.04, number=5))
    assert compare(pick([0, 1]), pick([0, 2]), Limits(score=0.05, number=2))[0] == 1
    with pytest.raises(UserError, match="the student alone has it"):
        compare(pick([0, 1]), pick([0, 2]), Limits(score=0.05, number=3))

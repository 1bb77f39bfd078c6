"""eakd_det.utils.drawing."""

import numpy as np
import pytest

from eakd_det.utils.drawing import LETTERS, MIN_WIDTH, draw_boxes, place_tag

PANEL = (420, 420)


def overlap(a, b):
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0) * max(height, 0)


@pytest.mark.parametrize(
    ("box", "others"),
    [
        ([100, 100, 200, 200], []),
        ([100, 0, 200, 200], []),  # no room above
        ([100, 100, 200, 200], [[90, 20, 210, 98]]),  # another object above
        ([350, 300, 420, 420], [[340, 230, 420, 299]]),  # in a corner, with a neighbour above
    ],
)
def test_a_label_hides_no_object(box, others):
    tag = place_tag(box, (60, 20), PANEL, [box, *others])
    assert 0 <= tag[0] < tag[2] <= 420 and 0 <= tag[1] < tag[3] <= 420
    assert all(overlap(tag, other) == 0 for other in (box, *others))


def test_labels_of_one_place_stand_apart():
    box = [100, 100, 200, 200]
    first = place_tag(box, (60, 20), PANEL, [box])
    second = place_tag(box, (60, 20), PANEL, [box, first])
    assert first[3] == 100, "above the box"
    assert overlap(first, second) == 0


def test_the_object_of_a_small_image_stays_as_it_is_under_a_label_of_legible_size():
    image = np.full((96, 96, 3), 90, np.uint8)
    drawn = draw_boxes(image, np.array([[30, 40, 60, 80]]), [3], ["seven: 99 %"])
    scale = MIN_WIDTH / 96
    inside = drawn[int(41 * scale) + 3 : int(79 * scale) - 3, int(31 * scale) : int(59 * scale)]
    assert (inside == 90).all()
    changed = (drawn[: int(40 * scale) - 1] != 90).any(axis=2)
    assert np.flatnonzero(changed.any(axis=1)).size >= LETTERS


def test_no_boxes():
    image = np.zeros((30, 600, 3), np.uint8)
    assert np.array_equal(draw_boxes(image, np.zeros((0, 4)), [], []), image)

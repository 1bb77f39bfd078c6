"""eakd_det.analysis.plane_figures."""

import numpy as np
import torch

from eakd_det.analysis.plane_figures import LINE, MOST_NAMES, draw_separations
from eakd_det.analysis.separation import Separation


def _separation(num_classes):
    """Ten points a class: class 0 high above the others, which share a place."""
    labels = torch.arange(num_classes).repeat_interleave(10)
    points = torch.zeros(len(labels), 2)
    points[:, 0] = torch.arange(10).repeat(num_classes)
    points[labels == 0, 1] = 100
    marked = torch.zeros(len(labels), dtype=torch.bool)
    return Separation(points, labels, 12.34, 50.0, marked, None)


def test_classes_are_named_near_their_points_and_apart():
    names = ["coat", "bag", "shirt"]
    figure = draw_separations({"KD": _separation(3)}, [["KD"]], names=names, what="objects")
    (axes,) = figure.axes
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert set(heights) == set(names) and heights["coat"] == 100
    assert np.isclose(abs(heights["bag"] - heights["shirt"]), 1.06 * 100 * LINE)
    assert np.isclose(heights["bag"] + heights["shirt"], 0)
    assert "CH 12.3" in axes.get_title() and "30 objects" in figure.get_suptitle()


def test_too_many_classes_have_no_names():
    number = MOST_NAMES + 1
    names = [str(i) for i in range(number)]
    figure = draw_separations({"KD": _separation(number)}, [["KD"]], names=names)
    assert not figure.axes[0].texts and "test images" in figure.get_suptitle()

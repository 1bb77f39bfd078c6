"""eakd_det.analysis.detection_figures."""

import numpy as np

from eakd_det.analysis.detection_figures import draw_ap_segments


def test_lines_are_the_aps_and_the_teacher_s_lead():
    teacher = [{"AP": 60.0}, {"AP": 40.0}, {"AP": 20.0}]
    students = {"KD": [{"AP": 55.0}, {"AP": 30.0}, {"AP": 5.0}], "EA": [{"AP": 10.0}] * 3}
    figure = draw_ap_segments(teacher, students, temperature=4.0)
    axes, gaps = figure.axes
    heights = [line.get_ydata().tolist() for line in axes.lines]
    assert heights == [[60, 40, 20], [55, 30, 5], [10, 10, 10]]
    leads = [line.get_ydata() for line in gaps.lines]
    assert np.array_equal(leads[1:], [[5, 10, 15], [50, 30, 10]])
    words = [text.get_text() for text in axes.texts]
    assert sorted(words) == ["EA", "KD", "teacher"] and len(gaps.texts) == 2
    colours = {line.get_color() for line in axes.lines}
    assert {text.get_color() for text in axes.texts} == colours

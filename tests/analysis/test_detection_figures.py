"""eakd_det.analysis.detection_figures."""

import numpy as np

from eakd_det.analysis.detection_figures import draw_ap_segments


def parts(*values, half=2.0):
    return [{"AP": x, "interval": (x - half, x + half)} for x in values]


def test_lines_are_the_aps_and_the_teacher_s_lead_with_their_intervals():
    aps = {"teacher": parts(60, 40, 20), "KD": parts(55, 30, 5), "EA": parts(10, 10, 10)}
    gaps = {"KD": parts(5, 10, 15, half=3.0), "EA": parts(50, 30, 10)}
    figure = draw_ap_segments(aps, gaps, temperature=4.0)
    axes, gap_axes = figure.axes
    heights = [bars.lines[0].get_ydata().tolist() for bars in axes.containers]
    assert heights == [[60, 40, 20], [55, 30, 5], [10, 10, 10]]
    leads = [bars.lines[0].get_ydata() for bars in gap_axes.containers]
    assert np.array_equal(leads, [[5, 10, 15], [50, 30, 10]])
    ends = gap_axes.containers[0].lines[2][0].get_segments()[-1][:, 1]
    assert ends.tolist() == [12, 18]
    words = [text.get_text() for text in axes.texts]
    assert sorted(words) == ["EA", "KD", "teacher"] and len(gap_axes.texts) == 2
    colours = {bars.lines[0].get_color() for bars in axes.containers}
    assert {text.get_color() for text in axes.texts} == colours
    assert "over the images" in figure.get_suptitle()

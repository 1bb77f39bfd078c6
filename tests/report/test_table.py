import pytest

from eakd_det.report.table import duration, millions


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "—"),
        (0.6, "1 s"),
        (99.4, "99 s"),
        (100, "1 min 40 s"),
        (3599.6, "1 h 0 min"),
        (184800, "51 h 20 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_summed_up_durations_are_said_to_be():
    assert duration(30.0, is_counted=False) == "about 30 s"


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "—"), (77850, "77.8 k"), (272474, "272 k"), (13_312_345, "13.3 M")],
)
def test_parameters(number, text):
    assert millions(number) == text

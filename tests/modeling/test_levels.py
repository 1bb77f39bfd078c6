import pytest

from eakd_det.modeling.levels import choose_levels
from eakd_det.utils.errors import UserError

MATCHED = [("p2", "t2"), ("p3", "t3"), ("p4", "t4")]


def test_all_without_names():
    assert choose_levels(MATCHED, ()) == MATCHED


def test_names_are_the_student_s_in_any_order():
    assert choose_levels(MATCHED, ("p4", "p2")) == [("p2", "t2"), ("p4", "t4")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p22", "'p22' is no feature map .* Did you mean 'p2'. They share p2, p3, p4."),
        ("t3", "DISTILL.LEVELS: 't3' is no feature map .* They share p2, p3, p4."),
    ],
)
def test_an_unknown_name(name, message):
    with pytest.raises(UserError, match=message):
        choose_levels(MATCHED, ("p2", name))

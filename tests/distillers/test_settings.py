import pytest

from eakd_det.config.defaults import detection_config
from eakd_det.distillers import DISTILLERS, method_settings, name_pair, scalar_defaults
from eakd_det.utils.errors import UserError


def test_scalar_defaults():
    def function(a, b=1, *, c=2, d=3.0, e=None):
        pass

    assert scalar_defaults(function, leave_out=("e",)) == {"c": 2, "d": 3.0}


def test_settings_of_a_config():
    node = detection_config().DISTILL
    node.METHODS, node.KD.WEIGHT = ("KD",), 0.5
    settings = method_settings(node, DISTILLERS)
    assert settings["methods"] == {"KD": {"weight": 0.5, **DISTILLERS["KD"].defaults}}
    assert settings["ea"].keys() == {"enabled", "mode", "temperature", "bound", "background"}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("METHODS", "DISTILL.METHODS: 'X' is unknown"),
        ("EA.MODE", "DISTILL.EA.MODE: 'X' is"),
        ("EA.BACKGROUND", "DISTILL.EA.BACKGROUND: 'X' is"),
    ],
)
def test_unknown_names_are_refused(key, message):
    cfg = detection_config()
    cfg.merge_from_list([f"DISTILL.{key}", ("X",) if key == "METHODS" else "X"])
    with pytest.raises(UserError, match=f"{message}.*; choose from"):
        method_settings(cfg.DISTILL, DISTILLERS)


@pytest.mark.parametrize("entry", ["a", ("a", "a"), ["a", "a"]])
def test_names_of_both(entry):
    assert name_pair("DISTILL.KEY", entry, "['x', 'y']") == ("a", "a")


@pytest.mark.parametrize("entry", [3, None, ["a"], ["a", 2], ["a", "b", "c"]])
def test_neither_a_name_nor_a_pair(entry):
    with pytest.raises(UserError) as error:
        name_pair("DISTILL.KEY", entry, "['x', 'y']")
    message = f"DISTILL.KEY: {entry!r} is neither a name nor a pair of the student's and the "
    assert str(error.value) == f"{message}teacher's name, such as ['x', 'y']."

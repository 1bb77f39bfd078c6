import pytest

from eakd_det.config.defaults import detection_config
from eakd_det.distillers import DISTILLERS, method_settings, scalar_defaults
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
    assert settings["ea"].keys() == {"enabled", "mode", "temperature", "bound"}


@pytest.mark.parametrize(
    ("key", "message"),
    [("METHODS", "DISTILL.METHODS: 'X' is unknown"), ("EA.MODE", "DISTILL.EA.MODE: 'X' is")],
)
def test_unknown_names_are_refused(key, message):
    cfg = detection_config()
    cfg.merge_from_list([f"DISTILL.{key}", ("X",) if key == "METHODS" else "X"])
    with pytest.raises(UserError, match=f"{message}.*; choose from"):
        method_settings(cfg.DISTILL, DISTILLERS)

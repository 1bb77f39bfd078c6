import inspect

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from eakd_det.config import add_distill_config, stock_config
from eakd_det.losses import dkd_loss, entropy_weight, kd_loss


def _cfg():
    cfg = get_cfg()
    add_distill_config(cfg)
    return cfg


@pytest.mark.parametrize(
    ("method", "loss", "keys"),
    [("KD", kd_loss, ["temperature"]), ("DKD", dkd_loss, ["alpha", "beta", "temperature"])],
)
def test_defaults_are_those_of_the_signatures(method, loss, keys):
    node = _cfg().DISTILL[method]
    assert set(node) == {"WEIGHT", *(key.upper() for key in keys)}
    parameters = inspect.signature(loss).parameters
    assert [node[key.upper()] for key in keys] == [parameters[key].default for key in keys]


def test_entropy_temperature_is_that_of_the_signature():
    default = inspect.signature(entropy_weight).parameters["temperature"].default
    assert _cfg().DISTILL.EA.TEMPERATURE == default


def test_a_misspelt_key_stops():
    with pytest.raises(AssertionError, match="Non-existent key: DISTILL.KD.TEMPERATUR"):
        _cfg().merge_from_list(["DISTILL.KD.TEMPERATUR", 2.0])


def test_stock_config_is_plain_detectron2(distill_cfg, tmp_path):
    (tmp_path / "student.yaml").write_text(stock_config(distill_cfg).dump())
    plain = get_cfg()  # knows none of our keys, so merging ours would raise
    plain.merge_from_file(str(tmp_path / "student.yaml"))
    assert type(build_model(plain)).__name__ == "GeneralizedRCNN"
    assert distill_cfg.MODEL.META_ARCHITECTURE == "DistillRCNN", "the original is not changed"

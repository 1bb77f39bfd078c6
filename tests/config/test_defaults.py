import inspect

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from eakd_det.config.defaults import add_distill_config, stock_config
from eakd_det.config.merge import load_config
from eakd_det.losses import dkd_loss, entropy_weight, kd_loss
from eakd_det.utils.errors import UserError


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
    assert set(node) == {"WEIGHT", "STANDARDIZE", *(key.upper() for key in keys)}
    parameters = inspect.signature(loss).parameters
    assert [node[key.upper()] for key in keys] == [parameters[key].default for key in keys]


def test_entropy_temperature_is_that_of_the_signature():
    default = inspect.signature(entropy_weight).parameters["temperature"].default
    assert default == _cfg().DISTILL.EA.TEMPERATURE


@pytest.mark.parametrize(
    ("yaml", "options", "message"),
    [
        ("DISTILL: {KD: {TEMPERATUR: 2.0}}", [], "DISTILL.KD.TEMPERATUR; did you mean DISTILL.KD."),
        ("", ["DISTILL.DKD.BETTA", "1"], "the command line: .*did you mean DISTILL.DKD.BETA?"),
        ("", ["DISTILL.KD.TEMPERATURE", "'hot'"], "the command line: Type mismatch"),
        ("DISTILL: {KD: {TEMPERATURE: hot}}", [], "run.yaml: Type mismatch"),
        ("DISTILL: {EA: {BOUND: 100}}", [], "run.yaml: .*Write the number with decimals, such"),
        ("", ["DISTILL.KD.TEMPERATURE"], "the command line: .*at 'DISTILL.KD.TEMPERATURE'"),
        ("", ["SEED", "1", "SEED=3"], "the command line: expected KEY VALUE pairs.* at 'SEED=3'"),
        ("DISTILL: {KD: [}", [], "run.yaml is not valid YAML: "),
        (
            "",
            ["DISTILL.KD", "1"],
            "DISTILL.KD is a node of keys: name one.*DISTILL.KD.WEIGHT",
        ),
        ("", ["DISTILL.METHODS", "('FOO',)"], "DISTILL.METHODS: 'FOO' is unknown; choose from "),
        ("DISTILL: {EA: {MODE: foo}}", [], "DISTILL.EA.MODE: 'foo' is unknown; choose from full"),
    ],
)
def test_errors_name_the_key(tmp_path, yaml, options, message):
    (tmp_path / "run.yaml").write_text(yaml or "VERSION: 2")
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "run.yaml"), options)


def test_no_such_file():
    with pytest.raises(UserError, match="--config-file: there is no file 'nowhere.yaml'"):
        load_config("nowhere.yaml")


def test_command_line_comes_last(tmp_path):
    (tmp_path / "run.yaml").write_text("DISTILL: {KD: {TEMPERATURE: 2.0}}")
    assert load_config(str(tmp_path / "run.yaml")).DISTILL.KD.TEMPERATURE == 2.0
    options = ["DISTILL.KD.TEMPERATURE", "3.0"]
    assert load_config(str(tmp_path / "run.yaml"), options).DISTILL.KD.TEMPERATURE == 3.0


def test_whole_numbers_on_the_command_line(tmp_path):
    (tmp_path / "run.yaml").write_text("VERSION: 2")
    options = ["DISTILL.EA.BOUND", "100", "SOLVER.BASE_LR", "1", "SOLVER.MAX_ITER", "7"]
    cfg = load_config(str(tmp_path / "run.yaml"), options)
    assert cfg.DISTILL.EA.BOUND == 100.0
    assert cfg.SOLVER.BASE_LR == 1.0
    assert cfg.SOLVER.MAX_ITER == 7
    assert isinstance(cfg.SOLVER.MAX_ITER, int)


def test_stock_config_is_plain_detectron2(distill_cfg, tmp_path):
    (tmp_path / "student.yaml").write_text(stock_config(distill_cfg).dump())
    plain = get_cfg()  # knows none of our keys, so merging ours would raise
    plain.merge_from_file(str(tmp_path / "student.yaml"))
    assert type(build_model(plain)).__name__ == "GeneralizedRCNN"
    assert distill_cfg.MODEL.META_ARCHITECTURE == "DistillRCNN", "the original is not changed"

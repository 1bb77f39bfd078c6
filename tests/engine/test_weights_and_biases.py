import argparse
import json
import sys

import pytest

from eakd_det.engine import launch, weights_and_biases
from eakd_det.utils.errors import UserError

STAND_IN = """
import json, os, types
def init(**options):
    with open(os.path.join(options["dir"], "init.json"), "w") as f:
        json.dump(options, f)
    return types.SimpleNamespace(id=options.get("id", "new"))
"""


@pytest.fixture
def start(stock_cfg, tmp_path, monkeypatch):
    """Sets up a run with --wandb; the options that wandb.init gets."""
    (tmp_path / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    stock_cfg.OUTPUT_DIR = str(tmp_path)

    def start(**flags):
        args = {"config_file": "", "wandb": "project", "eval_only": False, "resume": False}
        launch.set_up(stock_cfg, argparse.Namespace(**{**args, **flags}), str(tmp_path))
        return json.loads((tmp_path / "init.json").read_text())

    return start


def test_wandb_gets_what_tensorboard_gets_and_goes_on_in_the_same_run(start, tmp_path):
    first = {"project": "project", "dir": str(tmp_path), "sync_tensorboard": True}
    assert start() == first
    assert start(eval_only=True) == first
    assert start(resume=True) == {**first, "id": "new", "resume": "allow"}
    assert json.loads((tmp_path / "run.json").read_text())["wandb"] == "new"
    assert start() == first  # a new run in the folder


def test_wandb_is_absent(start, monkeypatch):
    monkeypatch.setattr(weights_and_biases.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--wandb: the package wandb is not installed"):
        start()

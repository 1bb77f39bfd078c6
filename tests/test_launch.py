import argparse
import json
import logging
import sys
from pathlib import Path

import pytest

from eakd_det import launch
from eakd_det.errors import UserError

STAND_IN = """
import json, os
def init(**options):
    with open(os.path.join(options["dir"], "init.json"), "w") as f:
        json.dump(options, f)
"""


@pytest.fixture
def arguments():
    return argparse.Namespace(config_file="", wandb="project", eval_only=False, resume=False)


def test_wandb_gets_what_tensorboard_gets(stock_cfg, arguments, tmp_path, monkeypatch):
    stock_cfg.OUTPUT_DIR = str(tmp_path)
    (tmp_path / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    options = json.loads(Path(tmp_path / "init.json").read_text())
    assert options == {"project": "project", "dir": str(tmp_path), "sync_tensorboard": True}


def test_wandb_is_asked_for_and_absent(stock_cfg, arguments, tmp_path, monkeypatch):
    stock_cfg.OUTPUT_DIR = str(tmp_path)
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--wandb: the package wandb is not installed"):
        launch.set_up(stock_cfg, arguments, str(tmp_path))


def test_the_log_is_plain_and_the_terminal_shows_no_config(stock_cfg, arguments, tmp_path, capsys):
    stock_cfg.OUTPUT_DIR, arguments.wandb = str(tmp_path), None
    arguments.config_file = str(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text("VERSION: 2\n")
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    logging.getLogger("fvcore.x").warning("\x1b[34mbackbone.weight\x1b[0m is missing")
    text, shown = (tmp_path / "log.txt").read_text(), capsys.readouterr().out
    assert "\x1b" not in text
    assert "fvcore.x WARNING: backbone.weight is missing" in text
    assert "Running with full config:" in text and "POSITIVE_FRACTION" in text
    assert "Contents of args.config_file" in text
    assert "backbone.weight" in shown and "Full config saved to" in shown
    assert "POSITIVE_FRACTION" not in shown and "Contents of args" not in shown


def test_what_trains_notes_its_command_and_an_evaluation_leaves_it(stock_cfg, arguments, tmp_path):
    stock_cfg.OUTPUT_DIR, arguments.wandb = str(tmp_path), None
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    before = (tmp_path / "run.json").read_text()
    assert json.loads(before)["starts"][0]["processes"] == 1
    arguments.eval_only = True
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    assert (tmp_path / "run.json").read_text() == before

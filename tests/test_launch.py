import argparse
import json
import sys
from pathlib import Path

import pytest
from detectron2.engine import TrainerBase

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


def test_what_trains_notes_its_command_and_an_evaluation_leaves_it(stock_cfg, arguments, tmp_path):
    stock_cfg.OUTPUT_DIR, arguments.wandb = str(tmp_path), None
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    before = (tmp_path / "run.json").read_text()
    assert json.loads(before)["starts"][0]["processes"] == 1
    arguments.eval_only = True
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    assert (tmp_path / "run.json").read_text() == before


def test_a_mistake_of_the_user_s_leaves_no_traceback_in_the_log(stock_cfg, arguments, tmp_path):
    class Trainer(TrainerBase):
        def run_step(self):
            raise UserError("a.png cannot be read.")

    stock_cfg.OUTPUT_DIR, arguments.wandb = str(tmp_path), None
    launch.set_up(stock_cfg, arguments, str(tmp_path))
    with pytest.raises(UserError):
        Trainer().train(0, 1)
    text = (tmp_path / "log.txt").read_text()
    assert "a.png cannot be read." in text
    assert "Traceback" not in text


def test_what_comes_before_the_processes(arguments):
    arguments.num_gpus, arguments.num_machines = 1, 1
    arguments.machine_rank, arguments.dist_url = 0, "auto"
    calls = []
    launch.launch(lambda _: calls.append("main"), arguments, before=lambda _: calls.append("first"))
    assert calls == ["first", "main"]

    def refuse(_):
        raise UserError("a.json is no JSON.")

    with pytest.raises(SystemExit, match="error: a.json is no JSON."):
        launch.launch(lambda _: calls.append("main"), arguments, before=refuse)
    assert calls == ["first", "main"]

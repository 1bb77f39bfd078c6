import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eakd_det.engine.run_record import add_to_record, read_record
from llm.tracking import wandb_run
from llm.training import fit

STAND_IN = """
import json, pathlib

class Run:
    id = "x1"
    def __enter__(self): return self
    def __exit__(self, kind, *_):
        global run
        run = None
        pathlib.Path(__file__).with_name("end.json").write_text(json.dumps(kind is None))

run = None

def init(**options):
    global run
    pathlib.Path(__file__).with_name("init.json").write_text(json.dumps(options))
    run = Run()
    return run
"""


def test_events_of_all_starts_are_in_one_folder(cfg):
    cfg.TRAINING.REPORT_TO = "tensorboard"
    cfg.TRAINING.LOGGING_STEPS = 1
    cfg.TRAINING.SAVE_STRATEGY, cfg.TRAINING.SAVE_STEPS = "steps", 1
    fit(cfg)
    cfg.TRAINING.MAX_STEPS = 2
    fit(cfg, resume=True)
    folder = Path(cfg.OUTPUT_DIR, "runs")
    assert all(path.is_file() for path in folder.iterdir())
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    fit(cfg, overwrite=True)
    assert len(list(folder.iterdir())) == 1


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return lambda name: json.loads((tmp_path / f"{name}.json").read_text())


def test_a_resumed_run_goes_on_in_the_same_run_of_wandb(tmp_path, wandb):
    folder = str(tmp_path / "run")
    args = Namespace(report_to=["wandb"], process_index=0, output_dir=folder, run_name="name")
    add_to_record(folder, starts=[])
    with pytest.raises(SystemExit), wandb_run(args):
        raise SystemExit(143)
    expected = {"project": "huggingface", "name": "name"}
    assert wandb("init") == expected and wandb("end") is False
    assert read_record(folder) == {"starts": [], "wandb": "x1"}
    with wandb_run(args):
        assert wandb("init") == {**expected, "id": "x1", "resume": "allow"}
        with wandb_run(args):  # a run of the caller is left alone
            pass
        assert wandb("end") is False
    assert wandb("end") is True


@pytest.mark.parametrize("values", [{"report_to": []}, {"process_index": 1}])
def test_nothing_is_sent_unasked(tmp_path, wandb, values):
    args = {"report_to": ["wandb"], "process_index": 0, "output_dir": str(tmp_path), **values}
    with wandb_run(Namespace(**args)):
        pass
    assert not (tmp_path / "init.json").exists()

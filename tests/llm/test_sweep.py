import fcntl
import json
import os

import pytest

from eakd_det.utils.errors import UserError
from llm.config import language_config
from llm.evaluation import SCORES
from llm.sweep import _origin, _outdated, _scores, row_names
from llm.training import RESULT, needed_runs, prepare


def config(*methods, is_ea=False):
    cfg = language_config()
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, is_ea
    return cfg


@pytest.mark.parametrize(
    ("configs", "names"),
    [
        ({"tiny/Teacher.yaml": config(), "tiny/KD.yaml": config("KD")}, ["Teacher", "KD"]),
        ({"a.yaml": config("KD"), "b.yaml": config("KD", is_ea=True)}, ["KD", "EA-KD"]),
        (
            {"KD-T2.yaml": config("KD"), "EA-KD-T2.yaml": config("KD", is_ea=True)},
            ["KD-T2", "EA-KD-T2"],
        ),
        ({"x/KD.yaml": config("KD"), "y/KD.yaml": config("KD")}, ["KD (x)", "KD (y)"]),
        ({"x/a.yaml": config("KD"), "x/b.yaml": config("KD")}, ["KD (x/a)", "KD (x/b)"]),
        ({"x/Teacher.yaml": config(), "y/Teacher.yaml": config()}, ["Teacher (x)", "Teacher (y)"]),
    ],
)
def test_rows_are_called_after_what_the_configs_say(configs, names):
    assert list(row_names(configs).values()) == names
    assert list(row_names(configs)) == list(configs)


def test_a_teacher_that_another_process_trains_is_waited_for(cfg, tmp_path, monkeypatch):
    teacher = cfg.clone()
    teacher.DISTILL.METHODS, teacher.OUTPUT_DIR = (), str(tmp_path / "Teacher")
    (tmp_path / "Teacher.yaml").write_text(teacher.dump())
    cfg.TEACHER.WEIGHTS, cfg.TEACHER.CONFIG_FILE = "", str(tmp_path / "Teacher.yaml")

    def sleep(_):
        (tmp_path / "Teacher").mkdir()
        (tmp_path / "Teacher" / RESULT).write_text("{}")
        other.close()

    monkeypatch.setattr("eakd_det.utils.lock.time.sleep", sleep)
    with open(tmp_path / "Teacher.lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        prepare(cfg)
    assert [path.name for path in (tmp_path / "Teacher").iterdir()] == [RESULT]


def test_two_needed_runs_of_one_name_are_both_trained(cfg, tmp_path):
    cfg.TEACHER.WEIGHTS = cfg.MODEL.WEIGHTS = ""
    for node, name in [(cfg.TEACHER, "a"), (cfg.MODEL, "b")]:
        (tmp_path / name).mkdir()
        node.CONFIG_FILE = str(tmp_path / name / "run.yaml")
        (tmp_path / name / "run.yaml").write_text(f"VERSION: 2\nOUTPUT_DIR: {name}")
    assert [run.OUTPUT_DIR for run in needed_runs(cfg).values()] == ["a", "b"]


def test_scores_of_an_earlier_model_do_not_count(cfg, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / RESULT).write_text("{}")
    scores = {"settings": cfg.TEST.dump(), "scores": {}}
    (folder / SCORES).write_text(json.dumps(scores))
    os.utime(folder / RESULT, ns=(0, 0))
    assert _scores(cfg) == scores
    os.utime(folder / SCORES, ns=(0, 0))
    os.utime(folder / RESULT, ns=(10**9, 10**9))
    with pytest.raises(UserError, match="has no model"):
        _scores(cfg)


def test_what_a_run_was_made_with(cfg, tmp_path):
    """Another teacher is named; what is only evaluated otherwise is no other run."""
    folder = tmp_path / "run"
    assert _outdated(cfg) == ""
    (folder / "checkpoint-1").mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(_origin(cfg)))
    assert _outdated(cfg) == ""
    cfg.TEST.SETS = ("a=b",)
    assert _outdated(cfg) == ""
    weights = tmp_path / "teacher" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before + b" ")
    assert _outdated(cfg).endswith(f"{cfg.MODEL.WEIGHTS} before it was trained anew")
    assert cfg.TEACHER.WEIGHTS in _outdated(cfg)
    weights.write_bytes(before)
    assert _outdated(cfg) == ""
    cfg.DISTILL.KD.WEIGHT = 2.0
    assert _outdated(cfg) == "another config or other options"

import os
from pathlib import Path

import pytest
from detectron2.config import LazyConfig

from eakd_det.config.lazy import load_lazy_config
from eakd_det.config.merge import load_config
from eakd_det.report.runs import find_folders, read_runs
from eakd_det.sweep.detectors import Detectors
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parent.parent.parent
LAZY = ROOT / "configs" / "COCO-Detection" / "lazy" / "ea_dkd_r18_r101.py"
KINDS = [Detectors()]


@pytest.fixture
def cfg():
    return load_config(str(ROOT / "configs" / "Digits-Detection" / "EA-DKD-R18-R101.yaml"))


def rows(iterations, **values):
    return [
        {"iteration": i, **{name: value + i for name, value in values.items()}} for i in iterations
    ]


def test_what_a_run_has_left(write_run, cfg):
    logged = [*rows((19, 39), total_loss=1.0), {"iteration": 40, "bbox/AP": 30.0}]
    folder = write_run("run", cfg, logged, run={"starts": [], "parameters": 7})
    (files,) = read_runs([str(folder)], KINDS)
    assert files.run.label == "run"
    assert files.config["DISTILL"]["METHODS"] == ["DKD"]
    assert files.metrics == {"total_loss": [(19, 20.0), (39, 40.0)], "bbox/AP": [(40, 30.0)]}
    assert files.last("bbox/AP") == 30.0 and files.last("segm/AP") is None
    assert (files.iterations, files.parameters) == (40, 7)


def test_seconds_are_counted_or_summed_up(write_run, cfg):
    logged = [{"iteration": 19, "time": 2.0}, {"iteration": 39, "time": 1.0}]
    summed, counted = read_runs(
        [
            str(write_run("summed", cfg, logged)),
            str(write_run("counted", cfg, logged, result={"seconds": 61.0})),
        ],
        KINDS,
    )
    assert summed.seconds == (60.0, False)
    assert counted.seconds == (61.0, True)


def test_a_folder_of_runs_stands_for_them(write_run, cfg):
    first, second = write_run("demo/a", cfg), write_run("demo/b", cfg)
    (first.parent / "datasets").mkdir()
    assert find_folders([str(first.parent), str(first)], KINDS) == [str(first), str(second)]
    assert [files.run.label for files in read_runs([str(first.parent)], KINDS)] == ["a", "b"]


def test_a_python_config_is_read(write_run, tmp_path):
    cfg = load_lazy_config(str(LAZY), [])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    (files,) = read_runs([str(write_run("lazy", (tmp_path / "config.yaml").read_text()))], KINDS)
    assert files.config["train"]["max_iter"] == cfg.train.max_iter


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda f: (f / "metrics.json").unlink(),
            "run/metrics.json does not exist: the folder is not",
        ),
        (lambda f: (f / "config.yaml").unlink(), "run is not the folder of a run"),
        (
            lambda f: (f / "metrics.json").write_text('{"iteration": 1}\n{"it'),
            "metrics.json, line 2: ",
        ),
        (lambda f: (f / "metrics.json").write_text("[1]\n"), "line 1: it has no iteration"),
        (lambda f: (f / "result.json").write_text("{"), "result.json is broken"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "config.yaml is not valid YAML"),
        (lambda f: (f / "config.yaml").write_text("words"), "is not the config of a run"),
    ],
)
def test_mistakes_are_told(write_run, cfg, spoil, words):
    folder = write_run("run", cfg)
    spoil(folder)
    with pytest.raises(UserError, match=words):
        read_runs([str(folder)], KINDS)


def test_a_missing_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="There is no run folder"):
        read_runs([os.path.join(tmp_path, "nowhere")], KINDS)

"""Runs of language models as sweep and report see them."""

import contextlib
import fcntl
import json
import os
from pathlib import Path

import pytest
import torch
import yaml

from classification.runs import Classifiers
from eakd_det.report.page import write_report
from eakd_det.report.runs import read_runs
from eakd_det.sweep.detectors import Detectors
from eakd_det.sweep.find_kind import kind_of, kind_of_folder
from eakd_det.sweep.grid import plan
from eakd_det.sweep.launchers import Local
from eakd_det.sweep.runner import run_sweep
from eakd_det.sweep.status import status
from eakd_det.sweep.tables import write_tables
from eakd_det.utils.errors import UserError
from llm.config import language_config
from llm.evaluation import SCORES, _scores_of
from llm.results import figures_of
from llm.runs import LanguageModels
from llm.tables import row_names
from llm.training import TRAIN_RESULT, needed_runs, prepare

ROOT = Path(__file__).parents[2]
KIND = LanguageModels()


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
        (
            {"x/KD.yaml": config("KD"), "y/KD.yaml": config("KD")},
            ["KD (x/KD.yaml)", "KD (y/KD.yaml)"],
        ),
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
        (tmp_path / "Teacher" / TRAIN_RESULT).write_text("{}")
        other.close()

    monkeypatch.setattr("eakd_det.utils.lock.time.sleep", sleep)
    with open(tmp_path / "Teacher.lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        prepare(cfg)
    assert [path.name for path in (tmp_path / "Teacher").iterdir()] == [TRAIN_RESULT]


def test_two_needed_runs_of_one_name_are_both_trained(cfg, tmp_path):
    cfg.TEACHER.WEIGHTS = cfg.MODEL.WEIGHTS = ""
    for node, name in [(cfg.TEACHER, "a"), (cfg.MODEL, "b")]:
        (tmp_path / name).mkdir()
        node.CONFIG_FILE = str(tmp_path / name / "run.yaml")
        (tmp_path / name / "run.yaml").write_text(f"VERSION: 2\nOUTPUT_DIR: {name}")
    assert [run.OUTPUT_DIR for run in needed_runs(cfg).values()] == ["a", "b"]
    assert list(KIND.missing(cfg).values()) == ["a", "b"]


def test_needed_runs_have_the_device_and_the_mixed_precision_of_the_run(cfg, tmp_path):
    file = tmp_path / "teacher.yaml"
    file.write_text("VERSION: 2\nTRAINING:\n  FP16: True\n")
    cfg.TEACHER.WEIGHTS, cfg.TEACHER.CONFIG_FILE = "", str(file)
    cfg.TRAINING.USE_CPU = False
    plain = ["--config-file", str(file), "--resume"]
    assert needed_runs(cfg)[str(file)].TRAINING.FP16
    assert KIND.source_arguments(str(file), cfg, []) == plain
    cfg.TRAINING.USE_CPU = cfg.TRAINING.BF16 = True
    needed = needed_runs(cfg)[str(file)].TRAINING
    assert needed.USE_CPU and needed.BF16 and not needed.FP16
    options = [f"TRAINING.{text}" for text in ("USE_CPU=True", "BF16=True", "FP16=False")]
    options = [word for text in options for word in text.split("=")]
    assert KIND.source_arguments(str(file), cfg, []) == [*plain, *options]


def test_scores_of_an_earlier_model_do_not_count(cfg, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / TRAIN_RESULT).write_text("{}")
    scores = {"settings": cfg.TEST.dump(), "scores": {}}
    (folder / SCORES).write_text(json.dumps(scores))
    os.utime(folder / TRAIN_RESULT, ns=(0, 0))
    assert _scores_of(cfg) == scores
    os.utime(folder / SCORES, ns=(0, 0))
    os.utime(folder / TRAIN_RESULT, ns=(10**9, 10**9))
    with pytest.raises(UserError, match="has no model"):
        _scores_of(cfg)


@pytest.fixture
def run_of(cfg, tmp_path):
    """Plans the run of a config with KEY VALUE pairs."""
    cfg.TEST.SETS = ("a=b",)
    (tmp_path / "KD.yaml").write_text(cfg.dump())

    def make(*options, gpus=1):
        where = [str(tmp_path / "KD.yaml")], [3], str(tmp_path / "out")
        (run,) = plan(KIND, *where, [*options], gpus=gpus)
        return run

    return make


def test_the_origin_of_a_run(run_of, tmp_path):
    """Another teacher is noticed; what is only evaluated otherwise has the same origin."""
    run = run_of()
    assert run.folder == tmp_path / "out" / "KD" / tmp_path.name / "seed3"
    assert "--evaluate" in run.arguments and run.cfg.TRAINING.SEED == 3
    run.start()
    (run.folder / "model.safetensors").touch()
    assert run.outdated() == "" and run.result() is None
    settings = run.cfg.TEST.dump()
    (run.folder / "result.json").write_text(json.dumps({"rougeL": 1.0, "settings": settings}))
    assert run.result()["rougeL"] == 1.0
    other = run_of("TEST.SETS", '("c=d",)')
    assert other.outdated() == "" and other.result() is None, "to be evaluated, not trained"
    weights = tmp_path / "teacher" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before + b" ")
    assert run.outdated().endswith("student before it was trained anew")
    assert str(tmp_path / "teacher") in run.outdated()
    weights.write_bytes(before)
    assert run.outdated() == ""
    assert run_of("DISTILL.KD.WEIGHT", "2").outdated() == "another config or other options"


def test_networks_are_called_by_their_weights_or_configs(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name, networks in {
        "KD": ("gpt2-xl", "gpt2"),
        "Student": ("", "gpt2"),
        "tiny/KD": ("Teacher", "Start"),
        "tiny/Student": ("", "Start"),
        "tiny/Teacher": ("", "gpt2"),
    }.items():
        cfg = KIND.load(f"configs/LLM/{name}.yaml", [])
        assert KIND.networks(cfg) == networks == KIND.networks(yaml.safe_load(cfg.dump()))
    path = Path("configs/LLM/tiny/EA-KD.yaml")
    assert KIND.names(path, KIND.load(str(path), [])) == ("EA-KD", "Start-Teacher")


def test_the_folder_of_a_run_without_result_json(cfg, tmp_path):
    """As train_lm.py and evaluate_lm.py leave it, or a sweep of an earlier version."""
    folder = tmp_path / "run"
    folder.mkdir()
    cfg.TEST.SETS = ("a=b", "c=d")
    (folder / "config.yaml").write_text(cfg.dump())
    scores = {x: {"rougeL": [10.0, 20.0], "exact": [float(i)]} for i, x in enumerate("ac")}
    state = {"log_history": [{"loss": 2.0, "step": 5}, {"eval_loss": 1.0, "step": 9}]}
    for name, content in {
        TRAIN_RESULT: {"train_loss": 2.0, "seconds": 7.0},
        SCORES: {"settings": "", "scores": scores, "answers": {}},
        "trainer_state.json": state,
    }.items():
        (folder / name).write_text(json.dumps(content))
    (files,) = read_runs([str(folder)], [KIND])
    assert kind_of(files.config, [KIND], "") is KIND and KIND.dataset(files.config) == "a, c"
    assert KIND.figures(files) == {
        **{"ROUGE-L": 15.0, "ROUGE-L a": 15.0, "ROUGE-L c": 15.0},
        **{"exact match": 0.5, "exact match a": 0.0, "exact match c": 1.0},
    }
    assert files.metrics == {"total_loss": [(4, 2.0)], "eval_loss": [(8, 1.0)]}
    assert files.seconds == (7.0, True) and files.iterations == 5


def test_several_processes_multiply_the_batch(run_of):
    """They are started by torchrun, and are another run; finished runs of one process stay."""
    run_of().start()
    run = run_of(gpus=2)
    (run.folder / "model.safetensors").touch()
    assert run.outdated() == "another config or other options" and run_of().outdated() == ""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert KIND.command("x.py", ["--resume"], 2) == [*torchrun, "x.py", "--resume"]
    assert KIND.command("x.py", ["--resume"], 1) == ["x.py", "--resume"]


@pytest.mark.slow
def test_a_sweep_with_two_processes_a_run(cfg, tmp_path):
    """On a machine without GPUs they train one run together, though USE_CPU is not set."""
    cfg.TRAINING.USE_CPU, cfg.TRAINING.PER_DEVICE_TRAIN_BATCH_SIZE = torch.cuda.is_available(), 2
    cfg.TEST.SETS, cfg.TEST.MAX_NEW_TOKENS = (f"own={cfg.DATASET.TRAIN}",), 2
    (tmp_path / "KD.yaml").write_text(cfg.dump())
    out = str(tmp_path / "out")
    runs = plan(KIND, [str(tmp_path / "KD.yaml")], [3], out, [], gpus=2)
    with contextlib.closing(Local(1)) as launcher:
        assert run_sweep(runs, str(ROOT / "tools" / "train_lm.py"), out, launcher, gpus=2) == {}
    (run,) = runs
    record = json.loads((run.folder / "run.json").read_text())
    assert [start["processes"] for start in record["starts"]] == [2]
    assert record["batch"] == {"devices": 2, "per_device": 2, "accumulate": 1}
    assert status(out).startswith("done 1, running 0, failed 0, left 0")


def test_tables_and_report_of_a_sweep(cfg, tmp_path):
    """Two configs over two seeds, as their processes leave them."""
    cfg.TEST.SETS = ("a=b", "c=d")
    files = [tmp_path / f"{name}.yaml" for name in ("EA-KD", "KD")]
    files[0].write_text(cfg.dump())
    cfg.DISTILL.EA.ENABLED = False
    files[1].write_text(cfg.dump())
    out = tmp_path / "out"
    for run in plan(KIND, [str(file) for file in files], [1, 2], str(out), []):
        run.start()
        rouge = 20.0 * run.cfg.DISTILL.EA.ENABLED + run.record["seed"]
        scores = {name: {"rougeL": [rouge], "exact": [1.0]} for name in "ac"}
        result = {**figures_of(scores), "teacher_rougeL": 50.0, "settings": cfg.TEST.dump()}
        state = {"log_history": [{"loss": 4.0 / step, "step": step} for step in (1, 2)]}
        for name, content in {
            "result.json": result,
            TRAIN_RESULT: {"seconds": 7.0},
            "trainer_state.json": state,
        }.items():
            (run.folder / name).write_text(json.dumps(content))
        made = run.cfg.clone()
        made.TRAINING.SEED, made.OUTPUT_DIR = run.record["seed"], str(run.folder)
        (run.folder / "config.yaml").write_text(made.dump())
        assert run.kind.describe(run.result()) == f"ROUGE-L {rouge:.2f}, exact match 1.00"
    text = " ".join(write_tables(KIND, str(out)).split())
    assert "| EA-KD | 21.50 ± 0.71 | 21.50 ± 0.71 |" in text and "ROUGE-L c" in text
    assert "| student-teacher | EA-KD minus KD | +20.00 ± 0.00 |" in text
    kinds = [KIND, Classifiers(), Detectors()]
    assert kind_of_folder(str(out), kinds) is KIND
    page = Path(write_report([str(out)], kinds)).read_text()
    assert "<h1>Language models on a, c</h1>" in page and "EA-KD, seed 2" in page
    assert "EA-KD minus KD" in page and "Lines of total loss over the iterations: " in page
    folders = [str(path.parent) for path in out.glob("*/*/*/config.yaml")]
    page = Path(write_report(folders, kinds, str(tmp_path / "page.html"))).read_text()
    assert "teacher → student" in page and "+20.00 ± 0.00" in page and "exact match c" in page


@pytest.mark.parametrize(
    ("words", "methods"),
    [
        (
            ["DISTILL.EA.TEMPERATURE", "1", "3"],
            ["Student", "KD", "EA-KD EA.TEMPERATURE=1", "EA-KD EA.TEMPERATURE=3"],
        ),
        (
            ["DATASET.TRAIN_SIZE", "9"],
            [f"{method} DATASET.TRAIN_SIZE=9" for method in ("Student", "KD", "EA-KD")],
        ),
    ],
)
def test_a_varied_key(monkeypatch, words, methods):
    monkeypatch.chdir(ROOT)
    files = [f"configs/LLM/tiny/{name}.yaml" for name in ("Student", "KD", "EA-KD")]
    runs = plan(KIND, files, [1], "out", [], vary=words)
    assert [run.record["method"] for run in runs] == methods

import argparse
import json
from pathlib import Path

import pytest
from detectron2.engine import DefaultTrainer

from eakd_det.config.choices import Choice
from eakd_det.engine import run_config
from eakd_det.engine.run_config import configure
from eakd_det.model_zoo import get_config_file
from eakd_det.utils.errors import UserError

ROOT = Path(__file__).parents[2]
FASTER = get_config_file("COCO-Detection/EA-DKD-R18-R101.yaml")


def _configure(file=FASTER, *opts, **flags):
    defaults = dict.fromkeys(("train_json", "teacher", "student", "epochs"))
    flags = {**defaults, "resume": False, "eval_teacher": False, **flags}
    return configure(argparse.Namespace(config_file=str(file), opts=list(opts), **flags))


@pytest.mark.parametrize(
    ("json_file", "name"),
    [
        ("parts/train.json", "parts-train"),
        ("/a/parts/annotations/train.json", "parts-train"),
        ("/a/parts/train/_annotations.coco.json", "parts-train"),
        ("/a/screws and nuts/labels/all.v2.json", "screws and nuts-all.v2"),
    ],
)
def test_own_data_have_a_folder_of_their_own(json_file, name):
    run = _configure(train_json=json_file)
    assert run.cfg.OUTPUT_DIR == f"output/{name}/EA-DKD-R18-R101"
    why = "of --train-json and the config"
    assert run.choices == [Choice("OUTPUT_DIR", run.cfg.OUTPUT_DIR, why)]
    folder = _configure(train_json=json_file, student="mv2").cfg.OUTPUT_DIR
    assert folder == f"output/{name}/EA-DKD-R18-R101-mv2"


def test_a_student_of_timm_has_a_folder_of_its_name():
    pytest.importorskip("timm")
    cfg = _configure(train_json="parts/train.json", student="timm:regnetx_004").cfg
    assert cfg.OUTPUT_DIR == "output/parts-train/EA-DKD-R18-R101-regnetx_004"
    assert (cfg.MODEL.TIMM.NAME, cfg.MODEL.WEIGHTS) == ("regnetx_004", "timm://regnetx_004")


def test_an_output_dir_that_is_set_stays(tmp_path):
    own = "output/COCO-Detection/EA-DKD-R18-R101"
    assert _configure().cfg.OUTPUT_DIR == own
    data = {"train_json": "parts/train.json"}
    assert _configure(FASTER, "OUTPUT_DIR", own, **data).cfg.OUTPUT_DIR == own
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"_BASE_: {FASTER}\nOUTPUT_DIR: here\n")
    assert _configure(mine, **data).cfg.OUTPUT_DIR == "here"
    beside = str(tmp_path / "mine")
    mine.write_text(f"_BASE_: {FASTER}\nOUTPUT_DIR: {beside}\n")
    assert _configure(mine, **data).cfg.OUTPUT_DIR == beside
    mine.write_text(f"_BASE_: {FASTER}\n")
    assert _configure(mine, **data).cfg.OUTPUT_DIR == "output/parts-train/mine"
    mine.write_text("VERSION: 2\n")  # Detectron2's ./output
    assert _configure(mine, **data).cfg.OUTPUT_DIR == "output/parts-train/mine"


def test_a_run_s_own_config_stays_in_its_folder(tmp_path, monkeypatch):
    """Also one that the OUTPUT_DIR of a packaged config holds."""
    monkeypatch.chdir(tmp_path)
    run = _configure()
    folder = Path(run.cfg.OUTPUT_DIR)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(run.cfg.dump())
    again = _configure(folder / "config.yaml", train_json="parts/train.json")
    assert again.cfg.OUTPUT_DIR == str(folder)
    (folder / "last_checkpoint").write_text("model_final.pth")
    (note,) = _configure(train_json="parts/train.json", resume=True).notes
    assert note.startswith(f"{folder} holds a run, too")
    assert not _configure(train_json="parts/train.json").notes


def test_pairs_precede_flags():
    run = _configure(FASTER, "MODEL.WEIGHTS", "mine.pth", student="r50")
    assert (run.cfg.MODEL.WEIGHTS, run.cfg.MODEL.RESNETS.DEPTH) == ("mine.pth", 50)


@pytest.mark.parametrize(
    ("config", "tool"),
    [
        ("FashionMNIST/EA-KD/resnet20_resnet8", "train_classifier"),
        ("CIFAR100/Base", "train_classifier"),
        ("LLM/EA-KD", "train_lm"),
    ],
)
def test_configs_of_other_tools_are_refused(config, tool):
    with pytest.raises(UserError, match=f"{config}.yaml is the config of a.*: tools/{tool}.py"):
        _configure(ROOT / "configs" / f"{config}.yaml")


def _resume(folder, *opts, processes=4, accumulate=1):
    """The config of a run that began with some processes and is resumed with one, and its notes."""
    start = {"processes": processes, "accumulate": accumulate}
    (folder / "run.json").write_text(json.dumps({"starts": [start]}))
    opts = [
        "OUTPUT_DIR",
        str(folder),
        "SOLVER.BASE_LR",
        "0.02",
        "SOLVER.IMS_PER_BATCH",
        "16",
        *opts,
    ]
    run = _configure(FASTER, *opts)
    run.keep_step(argparse.Namespace(resume=True, opts=opts))
    return run.cfg, run.notes


def test_a_step_keeps_its_images_with_fewer_processes(tmp_path):
    cfg, notes = _resume(tmp_path)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE, cfg.SOLVER.BASE_LR) == (16, 4, 0.02)
    assert notes == ["The run began with 4 processes and has 1: SOLVER.ACCUMULATE is 4, not 1."]
    assert _resume(tmp_path, accumulate=2)[0].SOLVER.ACCUMULATE == 8
    cfg, notes = _resume(tmp_path, "SOLVER.ACCUMULATE", "2")  # has the last word
    assert cfg.SOLVER.ACCUMULATE == 2 and not notes
    assert not _resume(tmp_path, processes=1)[1]


def test_a_step_that_processes_do_not_divide(tmp_path, monkeypatch):
    monkeypatch.setattr(run_config.comm, "get_world_size", lambda: 3)
    monkeypatch.setattr(run_config.comm, "all_gather", lambda mine: [mine])
    cfg, notes = _resume(tmp_path)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE) == (15, 5)
    assert cfg.SOLVER.BASE_LR == pytest.approx(0.02 * 15 / 16)
    assert "SOLVER.IMS_PER_BATCH is 15, not 16; SOLVER.ACCUMULATE is 5, not 1; SOLV" in notes[0]


def test_a_step_that_detectron2_scales_stays_as_it_began(tmp_path):
    """REFERENCE_WORLD_SIZE 2: with 4 processes a step had twice the images, half the iterations."""
    options = ("SOLVER.REFERENCE_WORLD_SIZE", "2", "SOLVER.MAX_ITER", "100", "SOLVER.STEPS", "()")
    cfg, _ = _resume(tmp_path, *options)
    solver = DefaultTrainer.auto_scale_workers(cfg, 1).SOLVER  # as the trainer does
    assert (solver.IMS_PER_BATCH, solver.ACCUMULATE, solver.MAX_ITER) == (32, 4, 50)
    assert solver.BASE_LR == pytest.approx(0.04)

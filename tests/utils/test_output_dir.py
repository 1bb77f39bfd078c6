import importlib.util
import os
import sys
from pathlib import Path

import pytest

from classification.run import main as classifiers_main
from eakd_det.utils.errors import UserError
from eakd_det.utils.output_dir import TRAINER_FILES
from llm.training import FILES

ROOT = Path(__file__).parents[2]
DIGITS = """
VERSION: 2
OUTPUT_DIR: run
MODEL: {NAME: resnet8, DEVICE: cpu}
TEACHER: {CONFIG_FILE: teacher.yaml}
DATASET: {NAME: digits, TRAIN_SIZE: 16}
SOLVER: {EPOCHS: 1, BATCH_SIZE: 16}
"""


def make_run(folder):
    """Make what a run may have left, and files of the user's; return the names of the latter."""
    ours = ["last_checkpoint", "model_0000099.pth", "model_final.pth", "model_best.pth"]
    ours += ["metrics.json", "result.json", "events.out.tfevents.1", "non_finite_rank0.pth"]
    ours += ["inference/coco_instances_results.json", "inference/val/instances_predictions.pth"]
    users = ["config.yaml", "log.txt", "notes.txt", "model_0000099_mine.pth", "inference/mine.json"]
    for name in [*ours, *users]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("model_final.pth")
    return users


def content(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check(folder, **options):
    options = {"resume": False, "overwrite": False, **options}
    TRAINER_FILES.check(str(folder), **options)


def test_a_run_is_not_written_over_unasked(tmp_path):
    make_run(tmp_path)
    with pytest.raises(UserError, match="holds a run: --resume continues it, --overwrite starts"):
        check(tmp_path)
    check(tmp_path, resume=True)
    check(tmp_path, overwrite=True)
    with pytest.raises(UserError, match="give one of them"):
        check(tmp_path, resume=True, overwrite=True)


def test_a_start_that_failed_is_no_run(tmp_path):
    check(tmp_path / "nowhere")
    for name in ("config.yaml", "log.txt", "run.json", "metrics.json"):
        (tmp_path / name).touch()
    (tmp_path / "annotations").mkdir()
    check(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run"):
        check(tmp_path)


def test_only_files_of_a_run_are_removed(tmp_path):
    users = make_run(tmp_path)
    TRAINER_FILES.remove(str(tmp_path))
    left = {str(path.relative_to(tmp_path)) for path in content(tmp_path)}
    assert left == {*users, "metrics.json"}
    assert not (tmp_path / "metrics.json").read_text()


def test_what_a_run_reads_is_not_removed(tmp_path):
    make_run(tmp_path)
    with pytest.raises(UserError, match="--overwrite would remove .*model_best.pth, which the run"):
        check(tmp_path, overwrite=True, inputs=("", str(tmp_path / "model_best.pth")))


def test_a_refused_start_leaves_the_earlier_run(tmp_path):
    make_run(tmp_path)
    before = content(tmp_path)
    with (
        pytest.raises(UserError, match="of the data"),
        TRAINER_FILES.starting(str(tmp_path), overwrite=True),
    ):
        (tmp_path / "config.yaml").write_text("of the new run")
        raise UserError("of the data")
    assert content(tmp_path) == before
    with TRAINER_FILES.starting(str(tmp_path), overwrite=True):
        (tmp_path / "config.yaml").write_text("of the new run")
    assert not (tmp_path / "model_final.pth").exists()
    assert (tmp_path / "config.yaml").read_text() == "of the new run"


def test_a_refused_start_leaves_no_config(tmp_path):
    with (
        pytest.raises(UserError, match="of the data"),
        TRAINER_FILES.starting(str(tmp_path), overwrite=False),
    ):
        (tmp_path / "config.yaml").write_text("of the new run")
        (tmp_path / "log.txt").write_text("of the start")
        raise UserError("of the data")
    assert os.listdir(tmp_path) == ["log.txt"]


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Calls main of a script of tools/ with arguments, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / f"tools/{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        main = classifiers_main if name == "train_classifier" else module.main
        main(module.parse_arguments())

    return call


def refuses(tool, name, *arguments):
    before = content(Path("run"))
    with pytest.raises(UserError, match="OUTPUT_DIR .* holds a run: --resume continues"):
        tool(name, *arguments)
    assert content(Path("run")) == before


def test_detectors_do_not_start_over_a_run(call_tool, run_cfg, tmp_path):
    make_run(tmp_path / "run")
    before = content(tmp_path / "run")
    run_cfg.OUTPUT_DIR = "run"
    (tmp_path / "run.yaml").write_text(run_cfg.dump())
    config = ROOT / "configs" / "COCO-Detection" / "lazy" / "student_r18.py"
    for arguments in [("run.yaml",), (config, "train.output_dir=run")]:
        code, _, err = call_tool("train_net.py", "--config-file", *arguments)
        assert code == 1
        assert "error: OUTPUT_DIR run holds a run: --resume continues" in err
        assert content(tmp_path / "run") == before


def test_language_models_do_not_start_over_a_run(tool, tmp_path):
    (tmp_path / "run" / "checkpoint-2").mkdir(parents=True)
    config = str(ROOT / "configs" / "LLM" / "tiny" / "Teacher.yaml")
    refuses(tool, "train_lm", "--config-file", config, "OUTPUT_DIR", "run")


def test_a_classifier_starts_anew_where_it_may(tool, tmp_path, capsys):
    """Its teacher, begun by a stopped run, is checked before it is trained, too."""
    (tmp_path / "run.yaml").write_text(DIGITS)
    (tmp_path / "teacher.yaml").write_text(DIGITS.replace(": run", ": teacher"))
    (tmp_path / "run").mkdir()
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "last_checkpoint").write_text("model_0000000.pth")
    kd = ("--config-file", "run.yaml", "DISTILL.METHODS", '("KD",)')
    with pytest.raises(UserError, match="OUTPUT_DIR teacher holds a run"):
        tool("train_classifier", *kd)
    assert not os.listdir(tmp_path / "run")

    users = make_run(tmp_path / "run")
    refuses(tool, "train_classifier", "--config-file", "run.yaml")
    with pytest.raises(UserError, match="is not in"):
        tool(
            "train_classifier",
            "--config-file",
            "run.yaml",
            "--overwrite",
            "DATASET.NAME",
            "cifar100",
        )
    assert (tmp_path / "run" / "model_0000099.pth").exists()
    assert (tmp_path / "run" / "config.yaml").read_text() == "model_final.pth"
    tool("train_classifier", "--config-file", "run.yaml", "--overwrite")
    left = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*")}
    assert left >= {*users, "model_0000000.pth", "model_final.pth"}
    assert "model_0000099.pth" not in left
    assert "student: top-1" in capsys.readouterr().out


@pytest.mark.parametrize("node", ["MODEL", "TEACHER"])
def test_a_classifier_that_does_not_exist_is_refused_first(tool, tmp_path, node):
    """Before data are read or a missing teacher is trained."""
    (tmp_path / "run.yaml").write_text(DIGITS)
    (tmp_path / "teacher.yaml").write_text(DIGITS.replace(": run", ": teacher"))
    arguments = ["DISTILL.METHODS", '("KD",)', f"{node}.NAME", "torchvision:resnet1"]
    if node == "TEACHER":
        arguments += ["TEACHER.CONFIG_FILE", "", "TEACHER.WEIGHTS", "pretrained"]
    with pytest.raises(UserError, match="torchvision:resnet1: there is no such model. Similar"):
        tool("train_classifier", "--config-file", "run.yaml", *arguments, "DATASET.ROOT", "none")
    assert sorted(os.listdir(tmp_path)) == ["run.yaml", "teacher.yaml"]


def test_a_user_s_language_model_stays(tmp_path):
    ours = ["checkpoint-12/trainer_state.json", "model.safetensors", "train_result.json"]
    users = ["checkpoint-12-mine/trainer_state.json", "mine.safetensors", "config.yaml"]
    for name in [*ours, *users]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    FILES.remove(str(tmp_path))
    assert sorted(str(p.relative_to(tmp_path)) for p in content(tmp_path)) == sorted(users)

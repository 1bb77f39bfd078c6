"""eakd_det.checkpoint.run_folder."""

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.checkpoint.run_folder import RunFolder, find_run
from eakd_det.engine.student_config import write_student_config
from eakd_det.export import export_student
from eakd_det.utils.errors import UserError

from .common import build


@pytest.fixture
def folder(tmp_path):
    """A run's folder with a config of a detector."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(get_cfg().dump())
    return folder


def save(folder, *names, **content):
    for name in names:
        torch.save({"model": {"backbone.weight": torch.zeros(1)}, **content}, folder / name)


def found(folder):
    run = find_run(str(folder))
    parts = [path.removeprefix(f"{folder}/") for path in (run.config_file, run.weights)]
    return (*parts, run.class_names)


def test_a_run_of_this_package(folder):
    """The student's stock config and the best weights come first."""
    save(folder, "model_final.pth", "model_0000009.pth", class_names=["bolt", "nut"])
    (folder / "last_checkpoint").write_text("model_final.pth")
    assert found(folder) == ("config.yaml", "model_final.pth", ("bolt", "nut"))
    (folder / "student.yaml").write_text(get_cfg().dump())
    save(folder, "model_best.pth", class_names=["nut"])
    assert found(folder) == ("student.yaml", "model_best.pth", ("nut",))


def test_a_stock_run(folder):
    """Detectron2's own checkpointer saves no class names."""
    DetectionCheckpointer(nn.Linear(1, 1), str(folder)).save("model_final")
    expected = RunFolder(f"{folder}/config.yaml", f"{folder}/model_final.pth", None)
    assert find_run(str(folder)) == expected


def test_an_exported_student(stock_cfg, distill_cfg, tmp_path):
    distill_cfg.OUTPUT_DIR = str(tmp_path / "run")
    write_student_config(distill_cfg)
    names = ["a", "b", "c", "d", "e"]
    checkpointer = SafeCheckpointer(
        build(distill_cfg, 0), distill_cfg.OUTPUT_DIR, class_names=names
    )
    checkpointer.save("model_final")
    export_student(distill_cfg.OUTPUT_DIR, str(tmp_path / "out"))
    assert found(tmp_path / "out") == ("student.yaml", "student.pth", tuple(names))


def test_a_run_that_goes_on(folder, caplog):
    """Its newest checkpoint is used, with a warning."""
    save(folder, "model_0000009.pth", "model_0000019.pth")
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    assert found(folder) == ("config.yaml", "model_0000009.pth", None)
    assert "the run is not finished; its newest checkpoint model_0000009.pth is used" in caplog.text


@pytest.mark.parametrize("newest", ["", "model_0000029.pth"])
def test_no_weights(folder, newest):
    """The file of the newest checkpoint may be missing, or name one that was removed."""
    save(folder, "teacher.pth")
    holds = "config.yaml, teacher.pth"
    if newest:
        (folder / "last_checkpoint").write_text(newest)
        holds = "config.yaml, last_checkpoint, teacher.pth"
    with pytest.raises(UserError) as error:
        find_run(str(folder))
    assert str(error.value) == (
        f"{folder} has no weights: there is no model_best.pth, model_final.pth, student.pth or "
        f"last_checkpoint in it. It holds {holds}."
    )


def test_no_config(tmp_path):
    with pytest.raises(UserError, match=r"no student.yaml or config.yaml in it. It holds nothing."):
        find_run(str(tmp_path))
    for number in range(20):
        (tmp_path / f"{number:02}.jpg").touch()
    with pytest.raises(UserError, match=r"It holds 00.jpg, .*, 11.jpg and 8 more\."):
        find_run(str(tmp_path))


@pytest.mark.parametrize(("name", "kind"), [("model_final.pth", "a file"), ("other", "missing")])
def test_no_folder(folder, name, kind):
    save(folder, "model_final.pth")
    with pytest.raises(UserError, match=f"{folder / name} is {kind}: name the folder of a trained"):
        find_run(str(folder / name))


@pytest.mark.parametrize(
    "text", ["MODEL:\n  WEIGHTS: ''\nDATASET:\n  NAME: cifar100\n", "model:\n  _target_: x\n", ""]
)
def test_another_kind_of_run(folder, text):
    """A classifier's, one of a Python config, and an empty file."""
    (folder / "config.yaml").write_text(text)
    save(folder, "model_final.pth")
    with pytest.raises(UserError, match=r"config.yaml is not the YAML config of a detector"):
        find_run(str(folder))


def test_a_file_that_could_run_code(folder):
    torch.save({"model": {}, "class_names": pytest.raises}, folder / "model_final.pth")
    with pytest.raises(UserError, match=r"model_final.pth holds .*could run code"):
        find_run(str(folder))

import argparse
import shutil

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from eakd_det.data.datasets.digits import NAMES
from eakd_det.engine.run_config import configure
from eakd_det.utils.errors import UserError


@pytest.fixture
def folder(run_cfg, tmp_path):
    """Folder of a stock run: the teacher's config and weights, without class names."""
    folder = tmp_path / "teacher_run"
    folder.mkdir()
    shutil.copy(run_cfg.TEACHER.CONFIG_FILE, folder / "config.yaml")
    shutil.copy(run_cfg.TEACHER.WEIGHTS, folder / "model_final.pth")
    return folder


def _name(folder, names):
    weights = torch.load(folder / "model_final.pth", weights_only=True)
    torch.save({**weights, "class_names": list(names)}, folder / "model_final.pth")


@pytest.fixture
def compare(run_cfg, folder, tmp_path):
    """Compares the teacher in the folder with the data; the notes."""

    def compare(*opts):
        (tmp_path / "run.yaml").write_text(run_cfg.dump())
        flags = {"train_json": None, "student": None, "epochs": None, "resume": False}
        flags |= {"config_file": str(tmp_path / "run.yaml"), "opts": list(opts)}
        flags |= {"teacher": str(folder), "eval_teacher": False}
        run = configure(argparse.Namespace(**flags))
        DatasetCatalog.get(run.cfg.DATASETS.TRAIN[0])  # its names are known from here on
        run.compare_classes()
        return run

    return compare


def test_a_folder_names_config_and_weights(compare, folder):
    _name(folder, NAMES)
    run = compare()
    assert run.cfg.TEACHER.CONFIG_FILE == str(folder / "config.yaml")
    assert run.cfg.TEACHER.WEIGHTS == str(folder / "model_final.pth")
    assert not run.notes


@pytest.mark.parametrize("dataset", ["mine", "custom_train"])
def test_a_stock_teacher_without_names(compare, folder, dataset):
    """The names of the student's --train-json are not those of an earlier run's."""
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "config.yaml"))
    cfg.DATASETS.TRAIN = (dataset,)
    (folder / "config.yaml").write_text(cfg.dump())
    MetadataCatalog.get("custom_train").thing_classes = list(NAMES)
    try:
        (note,) = compare().notes
    finally:
        MetadataCatalog.remove("custom_train")
    assert "holds no class names: only the number of its classes, 10, could be compared" in note


def test_a_stock_teacher_of_a_registered_dataset(compare, folder, scenes):
    """The names are those of its dataset, as the first step of a training has them."""
    cfg = get_cfg()
    cfg.merge_from_file(str(folder / "config.yaml"))
    cfg.DATASETS.TRAIN = ("teachers_digits",)
    (folder / "config.yaml").write_text(cfg.dump())
    MetadataCatalog.get("teachers_digits").thing_classes = NAMES[::-1]
    try:
        with pytest.raises(UserError, match="The teacher's classes are in another order"):
            compare()
    finally:
        MetadataCatalog.remove("teachers_digits")


def test_another_order_and_another_number(compare, folder, run_cfg):
    _name(folder, NAMES[::-1])
    with pytest.raises(UserError, match="The teacher's classes are in another order: '0' is its"):
        compare()
    run_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    with pytest.raises(UserError) as error:
        compare()
    assert f"The teacher {folder / 'model_final.pth'} has 10 classes (9, 8, 7" in str(error.value)
    assert "and the student 7 classes (MODEL.ROI_HEADS.NUM_CLASSES): a teacher" in str(error.value)


def test_classes_in_common(compare, folder, run_cfg):
    """Names are compared before the training; the numbers of the classes may differ."""
    _name(folder, [*NAMES[::-1], "ten"])
    run_cfg.DISTILL.CLASSES = ("3", ("4", "four"))
    with pytest.raises(UserError, match="DISTILL.CLASSES: the names of the teacher's 10 classes"):
        compare()
    _name(folder, NAMES[::-1])
    with pytest.raises(UserError, match="the teacher has no class 'four'"):
        compare()
    run_cfg.DISTILL.CLASSES = ("3", ("4", "5"))
    assert not compare().notes


def test_features_are_compared_without_classes(compare, run_cfg):
    run_cfg.DISTILL.METHODS, run_cfg.DISTILL.EA.ENABLED = ("REVIEWKD",), False
    run_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    assert not compare().notes


def test_a_pair_names_another_teacher(compare, run_cfg):
    run_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    run = compare("TEACHER.WEIGHTS", "other.pth")
    assert (run.cfg.TEACHER.WEIGHTS, run.notes) == ("other.pth", [])


def test_refusals(compare, folder, run_cfg):
    methods = run_cfg.DISTILL.METHODS
    run_cfg.DISTILL.METHODS = ()
    with pytest.raises(UserError, match="run.yaml trains a detector without a teacher"):
        compare()
    run_cfg.DISTILL.METHODS = methods
    (folder / "model_final.pth").unlink()
    with pytest.raises(UserError, match="--teacher: .*teacher_run has no weights"):
        compare()

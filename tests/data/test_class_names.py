import pytest
import torch
from detectron2.data import MetadataCatalog

from eakd_det.data.class_names import check_class_order
from eakd_det.data.datasets.digits import NAMES
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.utils.errors import UserError


def _train(cfg):
    trainer = DistillTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def test_another_order_names_both():
    with pytest.raises(UserError) as error:
        check_class_order(["cat", "dog", "cow"], ["dog", "cat", "cow"])
    text = str(error.value)
    assert "'cat' is its class 1 and the student's class 0" in text
    assert "The teacher has dog, cat, cow; the student's data have cat, dog, cow." in text


@pytest.mark.parametrize("teacher", [["cat", "dog"], [], ["cat", "dog", "cow"]])
def test_the_same_order_is_quiet(caplog, teacher):
    check_class_order(["cat", "dog"], teacher)
    check_class_order([], teacher)
    assert not caplog.records


def test_other_names_are_told(caplog):
    check_class_order(["cat", "dog", "dog"], ["chat", "dog", "chien"])
    assert "in the teacher's: 'cat' is 'chat', 'dog' is 'chien'." in caplog.text


def test_a_checkpoint_stores_its_class_names(run_cfg, tmp_path):
    """A student of an earlier run teaches one whose data have its classes in another order."""
    run_cfg.SOLVER.MAX_ITER = 1
    run_cfg.DATASETS.TEST = ()
    run_cfg.DISTILL.METHODS = ()
    _train(run_cfg)
    folder = tmp_path / "run"
    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    assert checkpoint["class_names"] == list(NAMES)
    run_cfg.DISTILL.METHODS = ("KD",)
    run_cfg.TEACHER.CONFIG_FILE = str(folder / "student.yaml")
    run_cfg.TEACHER.WEIGHTS = str(folder / "model_final.pth")
    run_cfg.OUTPUT_DIR = str(tmp_path / "second")
    _train(run_cfg)
    checkpoint["class_names"][:2] = reversed(checkpoint["class_names"][:2])
    torch.save(checkpoint, run_cfg.TEACHER.WEIGHTS)
    with pytest.raises(UserError, match="classes are in another order"):
        _train(run_cfg)


def test_names_of_the_teacher_s_dataset(run_cfg, teacher_cfg, tmp_path):
    """Names are those of its config's registered dataset, if its checkpoint has none."""
    MetadataCatalog.get("other_digits").thing_classes = [*NAMES[1:], NAMES[0]]
    teacher_cfg = teacher_cfg.clone()
    teacher_cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(NAMES)
    teacher_cfg.DATASETS.TRAIN = ("other_digits",)
    (tmp_path / "teacher.yaml").write_text(teacher_cfg.dump())
    with pytest.raises(UserError, match="classes are in another order"):
        _train(run_cfg)

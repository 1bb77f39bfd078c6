"""Classes of student and teacher that are refused before the first step, or warned of."""

import pytest
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from eakd_det.utils.errors import UserError
from tests.conftest import replace_teacher


def test_another_number_of_classes(distill_cfg):
    distill_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    message = "The student has 7 classes and the teacher 5: set MODEL.ROI_HEADS.NUM_CLASSES to"
    with pytest.raises(UserError, match=message):
        build_model(distill_cfg)


def test_another_number_of_classes_of_a_retinanet(retina_cfg):
    retina_cfg.MODEL.RETINANET.NUM_CLASSES = 3
    with pytest.raises(UserError, match="has 3 classes and the teacher 10: set MODEL.RETINANET"):
        build_model(retina_cfg)


def test_names_of_classes_that_are_not_known(distill_cfg):
    """The dataset of the student, then the checkpoint and the dataset of the teacher."""
    distill_cfg.DISTILL.CLASSES = ("a", ("b", "c"))
    with pytest.raises(UserError, match="the student has 5 classes .* training data name 0"):
        build_model(distill_cfg)
    MetadataCatalog.get("of_student").thing_classes = list("abcde")
    distill_cfg.DATASETS.TRAIN = ("of_student",)
    try:
        with pytest.raises(UserError, match="names of the teacher's 5 classes are not known"):
            build_model(distill_cfg)
    finally:
        MetadataCatalog.remove("of_student")


@pytest.mark.parametrize(("method", "warnings"), [("KD", 0), ("DKD", 1)])
def test_one_class(distill_cfg, teacher_cfg, tmp_path, caplog, method, warnings):
    one = ["MODEL.ROI_HEADS.NUM_CLASSES", 1]
    replace_teacher(distill_cfg, teacher_cfg, one, tmp_path)
    distill_cfg.merge_from_list([*one, "DISTILL.METHODS", (method,)])
    build_model(distill_cfg)
    told = [r for r in caplog.records if "one foreground class" in r.getMessage()]
    assert len(told) == warnings
    if warnings:
        assert 'NCKD is 0 and BETA without effect; DISTILL.METHODS ("KD",)' in told[0].getMessage()

"""Teachers of another family or with another padding."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks

from eakd_det.utils.errors import UserError
from tests.conftest import RETINA, replace_teacher

from .steps import flat, seen_batch, train

CASCADE = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
}
MASK = {"MODEL.MASK_ON": True, "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead"}
MASK |= {"MODEL.ROI_MASK_HEAD.NUM_CONV": 1, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8}
MASK |= {"MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 7}
FEATURES = {
    "DISTILL.METHODS": ("REVIEWKD", "CWD", "PKD", "MGD", "FGD"),
    "DISTILL.EA.ENABLED": False,
}


@pytest.mark.parametrize("methods", [("DKD", "REVIEWKD"), ("REVIEWKD",)])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [({}, CASCADE), ({}, MASK), (MASK, MASK), (CASCADE, {})],
    ids=["cascade-faster", "mask-faster", "mask-mask", "faster-cascade"],
)
def test_r_cnns(distill_cfg, teacher_cfg, batch, storage, tmp_path, student, teacher, methods):
    replace_teacher(distill_cfg, teacher_cfg, flat(teacher), tmp_path)
    distill_cfg.merge_from_list(flat(student))
    distill_cfg.DISTILL.METHODS = methods
    distill_cfg.DISTILL.EA.ENABLED = False  # whose weights change with the ROIs, up and down
    for x in batch if student is MASK else ():
        masks = torch.zeros(2, *x["instances"].image_size, dtype=torch.bool)
        masks[:, 20:60, 20:60] = True
        x["instances"].gt_masks = BitMasks(masks)
    first, last = train(distill_cfg, batch)
    assert sum(last.values()) < sum(first.values())
    assert last["loss_reviewkd"] < first["loss_reviewkd"]


def test_an_r_cnn_teaches_features_to_a_retinanet(retina_cfg, teacher_files, batch, storage):
    retina_cfg.TEACHER.CONFIG_FILE, retina_cfg.TEACHER.WEIGHTS = teacher_files
    retina_cfg.merge_from_list(flat(FEATURES))
    first, last = train(retina_cfg, batch)
    assert last["loss_reviewkd"] < first["loss_reviewkd"]


def test_a_retinanet_teaches_features_to_an_r_cnn(
    distill_cfg, teacher_cfg, batch, storage, tmp_path
):
    replace_teacher(distill_cfg, teacher_cfg, flat(RETINA), tmp_path)
    distill_cfg.merge_from_list(flat(FEATURES))
    first, last = train(distill_cfg, batch)
    assert last["loss_reviewkd"] < first["loss_reviewkd"]


def test_logits_of_another_family_name_the_way_out(
    distill_cfg, retina_cfg, teacher_cfg, teacher_files, tmp_path
):
    way_out = r"or compare feature maps alone, .* DISTILL.METHODS of those, such as .*REVIEWKD"
    retina_cfg.TEACHER.CONFIG_FILE, retina_cfg.TEACHER.WEIGHTS = teacher_files
    with pytest.raises(UserError, match=f"set TEACHER.CONFIG_FILE to a RetinaNet, {way_out}"):
        build_model(retina_cfg)


def test_a_teacher_that_pads_further(distill_cfg, batch, storage):
    """The maps are those of the common part; ROIs inside of it are the same."""
    distill_cfg.DISTILL.METHODS = ("KD", "REVIEWKD")
    model = build_model(distill_cfg)
    usual, square = (seen_batch(model, batch, size) for size in (0, 256))
    for x in (usual, square):
        sizes = [[m.shape[-2:] for m in maps] for maps in (x.student_features, x.teacher_features)]
        assert sizes[0] == sizes[1]
        assert x.padded_size == (128, 128)
    for maps in zip(usual.teacher_features, square.teacher_features, strict=True):
        assert maps[0].shape == maps[1].shape
    assert usual.logit_pairs[0].labels.tolist() == square.logit_pairs[0].labels.tolist()


def test_a_student_that_pads_further(distill_cfg, batch, storage):
    """Then the student's maps are cropped, and cover fewer pixels."""
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    model = build_model(distill_cfg)
    model.backbone._square_pad = 192
    seen = seen_batch(model, batch, 0)
    assert seen.padded_size == (128, 128)
    assert seen.student_features[0].shape[-2:] == (32, 32)
    assert all(torch.isfinite(loss) for loss in build_model(distill_cfg)(batch).values())


@pytest.mark.parametrize(("student", "teacher"), [(0, 256), (256, 0)])
def test_retinanets_that_pad_differently(retina_cfg, batch, storage, student, teacher):
    """Each anchor is compared with the same one; the student's own padding is background."""
    retina_cfg.DISTILL.METHODS = ("KD",)
    model = build_model(retina_cfg)
    model.backbone._square_pad = student
    pair = seen_batch(model, batch, teacher).logit_pairs[0]
    assert pair.student_logits.shape == pair.teacher_logits.shape


def test_an_image_that_is_larger_than_the_teacher_s_square(distill_cfg, batch, storage):
    model = build_model(distill_cfg)
    model.teacher.model.backbone._square_pad = 100
    with pytest.raises(UserError, match="128 x 96 pixels .* pads to 100 x 100 .*MAX_SIZE_TRAIN"):
        model(batch)

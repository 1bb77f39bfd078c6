"""Teachers of other classes."""

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from eakd_det.distillers.label_agreement import ENOUGH
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError
from tests.conftest import RETINA, replace_teacher

from .steps import flat, seen_batch, train


@pytest.fixture
def three_of_five(distill_cfg):
    """A student of three classes, of which two are among the teacher's five."""
    MetadataCatalog.get("of_teacher").thing_classes = list("abcde")
    MetadataCatalog.get("of_student").thing_classes = ["new", "E", "a"]
    distill_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    distill_cfg.DATASETS.TRAIN = ("of_student",)
    distill_cfg.DISTILL.CLASSES = (("E", "e"), "a")
    yield distill_cfg
    MetadataCatalog.remove("of_teacher")
    MetadataCatalog.remove("of_student")


def _name_teacher(cfg):
    names = {**torch.load(cfg.TEACHER.WEIGHTS), "class_names": list("abcde")}
    torch.save(names, cfg.TEACHER.WEIGHTS)


@pytest.mark.parametrize("is_retina", [False, True])
def test_some_classes_in_common(
    three_of_five, teacher_cfg, batch, storage, tmp_path, is_retina, request
):
    """ROIs or anchors of another class learn from their labels alone; the log has their share."""
    cfg = three_of_five
    options = {**RETINA, "MODEL.RETINANET.NUM_CLASSES": 5} if is_retina else {}
    replace_teacher(cfg, teacher_cfg, flat(options), tmp_path)
    _name_teacher(cfg)
    cfg.merge_from_list(flat({**options, "DISTILL.METHODS": ("KD",), "VIS_PERIOD": 1}))
    if is_retina:
        cfg.MODEL.RETINANET.NUM_CLASSES = 3
        cfg.MODEL.META_ARCHITECTURE = "DistillRetinaNet"
    for x in batch:
        x["instances"].gt_classes = torch.tensor([0, 2])
    model = build_model(cfg)
    seen = seen_batch(model, batch, 0)
    [pair] = seen.logit_pairs
    assert pair.student_logits.shape[1] == (2 if is_retina else 3)
    assert set(pair.labels.tolist()) == {1, 2}
    if not is_retina:
        assert len(pair.labels) < pair.normalizer
    _, last = train(cfg, batch)
    assert last["loss_kd"] > 0
    assert storage._vis_data and "distill/w_ea" in [x[0] for x in storage._vis_data]


@pytest.mark.parametrize("agnostic", [False, True])
def test_every_method_on_rois_with_some_classes(
    three_of_five, teacher_cfg, batch, storage, tmp_path, agnostic
):
    """Box deltas of the teacher for all classes at once, or those of the common ones."""
    options = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", agnostic]
    replace_teacher(three_of_five, teacher_cfg, options, tmp_path)
    _name_teacher(three_of_five)
    methods = ("KD", "DKD", "DIST", "NKD", "BOX", "RPN", "REVIEWKD")
    three_of_five.DISTILL.METHODS = methods
    three_of_five.DISTILL.EA.ENABLED = False
    for x in batch:
        x["instances"].gt_classes = torch.tensor([0, 2])
    losses = build_model(three_of_five)(batch)
    sum(losses.values()).backward()
    assert {f"loss_{name.lower()}" for name in methods} <= losses.keys()
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(
    ("number", "message"),
    [(5, "FCFD runs both box heads"), (3, "CLASSES: FCFD runs each box head")],
)
def test_whole_box_heads_need_the_same_classes(
    three_of_five, teacher_cfg, tmp_path, number, message
):
    options = ["MODEL.ROI_HEADS.NUM_CLASSES", number]
    replace_teacher(three_of_five, teacher_cfg, options, tmp_path)
    three_of_five.DISTILL.METHODS = ("FCFD",)
    with pytest.raises(UserError, match=message):
        build_model(three_of_five)


def test_the_share_of_right_labels_is_that_of_the_common_classes(
    three_of_five, batch, storage, teacher_cfg, tmp_path
):
    replace_teacher(three_of_five, teacher_cfg, [], tmp_path)
    _name_teacher(three_of_five)
    model = build_model(three_of_five)
    for x in batch:
        x["instances"].gt_classes = torch.tensor([1, 2])
    with record(theirs=model.teacher.model.roi_heads.box_predictor, heads=model.roi_heads) as calls:
        model(batch)
    labels = torch.cat([p.gt_classes for p in calls["heads"][0].output[0]])
    logits = calls["theirs"][-1].output[0][:, [4, 0]]  # e and a
    foreground = labels < 3
    right = (logits.argmax(dim=1) + 1 == labels) & foreground
    assert model.objective.agreement._counts.tolist() == [right.sum(), foreground.sum()]
    assert foreground.sum() < ENOUGH

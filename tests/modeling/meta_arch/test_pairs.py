"""Teachers of another family, of other classes or with another padding."""

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks

from eakd_det.distillers.label_agreement import ENOUGH
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError
from tests.conftest import RETINA, replace_teacher

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


def _flat(options):
    return [x for pair in options.items() for x in pair]


def _train(cfg, batch, steps=3):
    """The first and the last losses of some small steps."""
    torch.manual_seed(0)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 0.01
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    history = []
    for step in range(steps):
        torch.manual_seed(step % 2)  # the same samples in the first and the last
        losses = model(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history[0], history[-1]


@pytest.mark.parametrize("methods", [("DKD", "REVIEWKD"), ("REVIEWKD",)])
@pytest.mark.parametrize(
    ("student", "teacher"),
    [({}, CASCADE), ({}, MASK), (MASK, MASK), (CASCADE, {})],
    ids=["cascade-faster", "mask-faster", "mask-mask", "faster-cascade"],
)
def test_r_cnns(distill_cfg, teacher_cfg, batch, storage, tmp_path, student, teacher, methods):
    replace_teacher(distill_cfg, teacher_cfg, _flat(teacher), tmp_path)
    distill_cfg.merge_from_list(_flat(student))
    distill_cfg.DISTILL.METHODS = methods
    distill_cfg.DISTILL.EA.ENABLED = "DKD" in methods
    for x in batch if student is MASK else ():
        masks = torch.zeros(2, *x["instances"].image_size, dtype=torch.bool)
        masks[:, 20:60, 20:60] = True
        x["instances"].gt_masks = BitMasks(masks)
    first, last = _train(distill_cfg, batch)
    assert sum(last.values()) < sum(first.values())
    assert last["loss_reviewkd"] < first["loss_reviewkd"]


def test_an_r_cnn_teaches_features_to_a_retinanet(retina_cfg, teacher_files, batch, storage):
    retina_cfg.TEACHER.CONFIG_FILE, retina_cfg.TEACHER.WEIGHTS = teacher_files
    retina_cfg.merge_from_list(_flat(FEATURES))
    first, last = _train(retina_cfg, batch)
    assert last["loss_reviewkd"] < first["loss_reviewkd"]


def test_a_retinanet_teaches_features_to_an_r_cnn(
    distill_cfg, teacher_cfg, batch, storage, tmp_path
):
    replace_teacher(distill_cfg, teacher_cfg, _flat(RETINA), tmp_path)
    distill_cfg.merge_from_list(_flat(FEATURES))
    first, last = _train(distill_cfg, batch)
    assert last["loss_reviewkd"] < first["loss_reviewkd"]


def test_logits_of_another_family_name_the_way_out(
    distill_cfg, retina_cfg, teacher_cfg, teacher_files, tmp_path
):
    way_out = r"or compare feature maps alone, .* DISTILL.METHODS of those, such as .*REVIEWKD"
    retina_cfg.TEACHER.CONFIG_FILE, retina_cfg.TEACHER.WEIGHTS = teacher_files
    with pytest.raises(UserError, match=f"set TEACHER.CONFIG_FILE to a RetinaNet, {way_out}"):
        build_model(retina_cfg)


def _seen(model, batch, square):
    """The batch of the objective for a teacher that pads to a square."""
    model.teacher.model.backbone._square_pad = square
    seen = []
    model.objective.losses = lambda batch, _: seen.append(batch) or {}
    torch.manual_seed(1)
    model(batch)
    return seen[0]


def test_a_teacher_that_pads_further(distill_cfg, batch, storage):
    """The maps are those of the common part; ROIs inside of it are the same."""
    distill_cfg.DISTILL.METHODS = ("KD", "REVIEWKD")
    model = build_model(distill_cfg)
    usual, square = (_seen(model, batch, size) for size in (0, 256))
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
    seen = _seen(model, batch, 0)
    assert seen.padded_size == (128, 128)
    assert seen.student_features[0].shape[-2:] == (32, 32)
    assert all(torch.isfinite(loss) for loss in build_model(distill_cfg)(batch).values())


@pytest.mark.parametrize(("student", "teacher"), [(0, 256), (256, 0)])
def test_retinanets_that_pad_differently(retina_cfg, batch, storage, student, teacher):
    """Each anchor is compared with the same one; the student's own padding is background."""
    retina_cfg.DISTILL.METHODS = ("KD",)
    model = build_model(retina_cfg)
    model.backbone._square_pad = student
    pair = _seen(model, batch, teacher).logit_pairs[0]
    assert pair.student_logits.shape == pair.teacher_logits.shape


def test_an_image_that_is_larger_than_the_teacher_s_square(distill_cfg, batch, storage):
    model = build_model(distill_cfg)
    model.teacher.model.backbone._square_pad = 100
    with pytest.raises(UserError, match="128 x 96 pixels .* pads to 100 x 100 .*MAX_SIZE_TRAIN"):
        model(batch)


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
    replace_teacher(cfg, teacher_cfg, _flat(options), tmp_path)
    _name_teacher(cfg)
    cfg.merge_from_list(_flat({**options, "DISTILL.METHODS": ("KD",), "VIS_PERIOD": 1}))
    if is_retina:
        cfg.MODEL.RETINANET.NUM_CLASSES = 3
        cfg.MODEL.META_ARCHITECTURE = "DistillRetinaNet"
    for x in batch:
        x["instances"].gt_classes = torch.tensor([0, 2])
    model = build_model(cfg)
    seen = _seen(model, batch, 0)
    [pair] = seen.logit_pairs
    assert pair.student_logits.shape[1] == (2 if is_retina else 3)
    assert set(pair.labels.tolist()) == {1, 2}
    if not is_retina:
        assert len(pair.labels) < pair.normalizer
    _, last = _train(cfg, batch)
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

"""Methods on ROIs, anchors and box heads of R-CNNs."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.box_regression import Box2BoxTransform
from torch.testing import assert_close

from eakd_det.config.defaults import stock_config
from eakd_det.losses import (
    bernoulli_entropy,
    bernoulli_kd_loss,
    bounded_box_loss,
    combine_entropies,
    dist_loss,
    entropy_weight,
    fcfd_heads_loss,
    nkd_loss,
)
from eakd_det.modeling.recorder import record
from tests.conftest import replace_teacher

CASCADE = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
CASCADE += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
FCFD = {f"loss_fcfd_{part}" for part in ("app", "kd", "l2")}


def _build(cfg, methods, seed=0):
    cfg.DISTILL.METHODS = methods
    torch.manual_seed(seed)
    return build_model(cfg)


def _step(model, batch, **sources):
    """Losses of a step with a prepared teacher, and recorded calls."""
    model(batch)
    torch.manual_seed(3)
    with record(**sources) as calls:
        losses = model(batch)
    return losses, calls


@pytest.mark.parametrize("is_weighted", [False, True])
def test_logit_methods(distill_cfg, batch, storage, is_weighted):
    distill_cfg.DISTILL.EA.ENABLED = is_weighted
    model = _build(distill_cfg, ("DIST", "NKD"))
    losses, calls = _step(
        model,
        batch,
        student=model.roi_heads.box_predictor,
        teacher=model.teacher.model.roi_heads.box_predictor,
        seen=model.roi_heads.box_predictor.losses,
    )
    logits = calls["student"][0].output[0], calls["teacher"][0].output[0]
    labels = torch.cat([p.gt_classes for p in calls["seen"][0].args[1]])
    weight = entropy_weight(*logits) if is_weighted else None
    assert_close(losses["loss_dist"], dist_loss(*logits, weight=weight))
    assert_close(losses["loss_nkd"], nkd_loss(*logits, labels, weight=weight))


def test_dist_of_a_retinanet_is_a_mean_over_its_anchors(retina_cfg, batch, storage):
    model = _build(retina_cfg, ("DIST", "KD"))
    pairs = []
    find = model._logit_pairs
    model._logit_pairs = lambda *args: pairs.append(find(*args)) or pairs[-1]
    losses = model(batch)
    [pair] = pairs[-1]
    each = model.objective.methods["DIST"].distiller._per_sample(pair)
    assert_close(losses["loss_dist"], each.mean())
    assert pair.normalizer != len(each)


@pytest.mark.parametrize("train_on_pred_boxes", [False, True])
def test_box_regression(distill_cfg, teacher_cfg, batch, storage, tmp_path, train_on_pred_boxes):
    """Recomputed by hand; the teacher is class-agnostic and in other units."""
    options = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True]
    options += ["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", (1.0, 2.0, 1.0, 2.0)]
    replace_teacher(distill_cfg, teacher_cfg, options, tmp_path)
    distill_cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES = train_on_pred_boxes
    distill_cfg.DISTILL.BOX.MARGIN = 1e3
    model = _build(distill_cfg, ("BOX",))
    losses, calls = _step(
        model,
        batch,
        pooler=model.roi_heads.box_pooler,
        student=model.roi_heads.box_predictor,
        teacher=model.teacher.model.roi_heads.box_predictor,
        seen=model.roi_heads.box_predictor.losses,
    )
    (logits, deltas), (teacher_logits, teacher_deltas) = (
        calls[side][0].output for side in ("student", "teacher")
    )
    proposals = calls["seen"][0].args[1]
    labels = torch.cat([p.gt_classes for p in proposals])
    boxes = torch.cat([b.tensor for b in calls["pooler"][0].args[1]])
    truth = torch.cat([p.gt_boxes.tensor for p in proposals])
    chosen = (labels < 5).nonzero().flatten()
    targets = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)).get_deltas(
        boxes[chosen], truth[chosen]
    )
    mine = torch.stack([deltas[n, 4 * labels[n] : 4 * labels[n] + 4] for n in chosen])
    theirs = teacher_deltas[chosen] * torch.tensor([10.0, 5.0, 5.0, 2.5])
    weight = entropy_weight(logits, teacher_logits)[chosen]
    rows = mine, theirs, targets
    each = bounded_box_loss(*rows, margin=1e3, weight=weight, reduction="none")
    assert_close(losses["loss_box"], each.sum() / len(labels))
    assert losses["loss_box"] > 0


def test_box_regression_of_a_cascade(distill_cfg, teacher_cfg, batch, storage, tmp_path):
    """Each stage has deltas in its own units."""
    replace_teacher(distill_cfg, teacher_cfg, CASCADE, tmp_path)
    distill_cfg.merge_from_list(CASCADE)
    model = _build(distill_cfg, ("BOX",))
    weights = [p.box2box_transform.weights for p in model.roi_heads.box_predictor]
    assert len(set(map(tuple, weights))) == 3
    losses, calls = _step(
        model,
        batch,
        pooler=model.roi_heads.box_pooler,
        head=model.roi_heads.box_predictor[2],
        teacher=model.teacher.model.roi_heads.box_predictor[2],
        seen=model.roi_heads.box_predictor[2].losses,
    )
    assert {f"loss_box_stage{i}" for i in range(3)} <= losses.keys()
    proposals = calls["seen"][0].args[1]
    labels = torch.cat([p.gt_classes for p in proposals])
    truth = torch.cat([p.gt_boxes.tensor for p in proposals])
    boxes = torch.cat([b.tensor for b in calls["pooler"][2].args[1]])
    (logits, deltas), (teacher_logits, teacher_deltas) = (
        calls[side][0].output for side in ("head", "teacher")
    )
    chosen = labels < 5
    targets = Box2BoxTransform(weights=weights[2]).get_deltas(boxes[chosen], truth[chosen])
    weight = entropy_weight(logits, teacher_logits)[chosen]
    rows = deltas[chosen], teacher_deltas[chosen], targets
    each = bounded_box_loss(*rows, weight=weight, reduction="none")
    assert_close(losses["loss_box_stage2"], each.sum() / len(labels))


@pytest.mark.parametrize("is_weighted", [False, True])
def test_objectness(distill_cfg, batch, storage, is_weighted):
    """Recomputed by hand; the teacher's box head does not run."""
    distill_cfg.DISTILL.EA.ENABLED = is_weighted
    model = _build(distill_cfg, ("RPN",))
    theirs = model.teacher.model
    losses, calls = _step(
        model,
        batch,
        seen=model.proposal_generator.losses,
        teacher=theirs.proposal_generator.rpn_head,
        box_head=theirs.roi_heads.box_head,
    )
    assert not calls["box_head"]
    _, student, labels, *_ = calls["seen"][0].args
    maps = calls["teacher"][0].output[0]
    teacher = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in maps], dim=1)
    counted = torch.stack(labels) >= 0
    logits = [x[counted][:, None] for x in (torch.cat(student, dim=1), teacher)]
    weight = None
    if is_weighted:
        entropies = (bernoulli_entropy(x, temperature=3.0) for x in logits)
        weight = combine_entropies(*entropies, 2, None)
    each = bernoulli_kd_loss(*logits, weight=weight, reduction="none")
    assert_close(
        losses["loss_rpn"], each.sum() / (model.proposal_generator.batch_size_per_image * 2)
    )
    assert losses["loss_rpn"] > 0


def test_objectness_of_a_teacher_with_other_padding(distill_cfg, batch, storage):
    """The teacher pads 96 x 128 pixels to 128 x 128, and its maps are cropped."""
    distill_cfg.DISTILL.EA.ENABLED = False
    model = _build(distill_cfg, ("RPN",))
    theirs = model.teacher.model
    theirs.backbone._size_divisibility = 128
    sources = {"seen": model.proposal_generator.losses, "head": theirs.proposal_generator.rpn_head}
    losses, calls = _step(model, batch[:1], **sources)
    _, student, labels, *_ = calls["seen"][0].args
    maps = calls["head"][0].output[0]
    assert maps[0].shape[-2:] == (32, 32) and student[0].shape[1] == 24 * 32 * 3
    sizes = [(24, 32), (12, 16), (6, 8), (3, 4), (2, 2)]
    rows = [x[..., :h, :w].permute(0, 2, 3, 1) for x, (h, w) in zip(maps, sizes, strict=True)]
    counted = labels[0] >= 0
    logits = [torch.cat(student, dim=1)[0], torch.cat([x.flatten() for x in rows])]
    logits = [x[counted][:, None] for x in logits]
    each = bernoulli_kd_loss(*logits, reduction="none")
    assert_close(losses["loss_rpn"], each.sum() / model.proposal_generator.batch_size_per_image)


def test_objectness_beside_logits_and_for_another_number_of_classes(
    distill_cfg, teacher_cfg, batch, storage, tmp_path
):
    both = _build(distill_cfg, ("DKD", "RPN"))
    alone = _build(distill_cfg, ("RPN",))
    values = [_step(model, batch)[0]["loss_rpn"] for model in (both, alone)]
    assert values[0] == values[1]
    replace_teacher(distill_cfg, teacher_cfg, ["MODEL.ROI_HEADS.NUM_CLASSES", 9], tmp_path)
    assert _build(distill_cfg, ("RPN",))(batch)["loss_rpn"] > 0


def test_fcfd(distill_cfg, batch, storage):
    """Recomputed with the networks' own modules."""
    model = _build(distill_cfg, ("FCFD",))
    model(batch)
    bridges = model.adapters.FCFD.eval()
    teacher = model.teacher.model
    losses, calls = _step(
        model,
        batch,
        features=model.backbone,
        teacher_features=teacher.backbone,
        pooler=model.roi_heads.box_pooler,
        head=model.roi_heads.box_predictor,
        teacher_head=teacher.roi_heads.box_predictor,
    )
    maps, targets = (list(calls[k][0].output.values()) for k in ("features", "teacher_features"))
    boxes = calls["pooler"][0].args[1]

    def run(heads, maps):
        return heads.box_predictor(heads.box_head(heads.box_pooler(maps, boxes)))

    bridged = bridges.to_teacher(maps)
    own, target = run(model.roi_heads, maps[:4]), run(teacher.roi_heads, targets[:4])
    back = bridges.to_student(targets)
    paths = own, run(teacher.roi_heads, bridged[:4]), run(model.roi_heads, back)
    weight = entropy_weight(own[0], target[0])
    per_image = torch.stack([x.mean() for x in weight.split([len(b) for b in boxes])])
    expected = fcfd_heads_loss(
        bridged, targets, paths, target, image_weight=per_image, weight=weight
    )
    for part, value in expected.items():
        assert_close(losses[f"loss_fcfd_{part}"], value)
    assert [len(calls[k]) for k in ("head", "teacher_head")] == [2, 2], "s is the recorded one"
    assert list(bridges.bridges["t2s"]) == ["0", "1", "2", "3"], "no head reads p6"


def _check_trains(model, stock, batch, names):
    """Stock's losses are stock's, and every parameter gets a gradient."""
    stock.train()
    kept = {k: x for k, x in model.state_dict().items() if not k.startswith("adapters.")}
    stock.load_state_dict(kept)
    torch.manual_seed(3)
    expected = stock(batch)
    torch.manual_seed(3)
    losses = model(batch)
    assert all(torch.equal(losses[name], loss) for name, loss in expected.items())
    assert losses.keys() - expected.keys() == names
    sum(losses.values()).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in trained.values())
    assert all(p.grad is None for p in model.teacher.model.parameters())


def test_all_together(distill_cfg, batch, storage):
    methods = ("DKD", "DIST", "NKD", "REVIEWKD", "BOX", "RPN", "FCFD")
    model, stock = _build(distill_cfg, methods), build_model(stock_config(distill_cfg))
    names = {f"loss_{name.lower()}" for name in methods[:-1]} | FCFD
    _check_trains(model, stock, batch, names)


@pytest.mark.parametrize("precision", ["", "bfloat16"])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precisions(distill_cfg, batch, storage, precision, autocast):
    distill_cfg.TEACHER.PRECISION = precision
    model = _build(distill_cfg, ("DIST", "NKD", "BOX", "RPN", "FCFD"))
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = model(batch)
    assert all(x.dtype == torch.float32 for name, x in losses.items() if "fcfd" in name)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.adapters.parameters())


@pytest.mark.parametrize("methods", [("BOX",), ("RPN",), ("FCFD",), ("DIST", "NKD")])
def test_no_objects_and_no_rois(distill_cfg, batch, storage, methods):
    for x in batch:
        x["instances"] = x["instances"][:0]
    for number in (50, 0):
        distill_cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = number
        losses = _build(distill_cfg, methods)(batch)
        assert all(loss.isfinite() for loss in losses.values())
        sum(losses.values()).backward()


def test_an_image_without_objects(distill_cfg, batch, storage):
    batch[0]["instances"] = batch[0]["instances"][:0]
    losses = _build(distill_cfg, ("BOX", "RPN", "FCFD"))(batch)
    assert losses["loss_box"] > 0
    assert all(loss.isfinite() for loss in losses.values())

import copy
import itertools
import logging
import math
import pickle

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine.hooks import PreciseBN
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Instances
from detectron2.utils.events import EventStorage
from torch import nn
from torch.distributed.utils import _recursive_to
from torch.optim.swa_utils import AveragedModel

from eakd_det.config.defaults import stock_config
from eakd_det.distillers.label_agreement import ENOUGH
from eakd_det.losses import (
    bernoulli_entropy,
    bernoulli_kd_loss,
    combine_entropies,
    dkd_loss,
    entropy,
    entropy_weight,
    hcl_loss,
    kd_loss,
)
from eakd_det.modeling.recorder import record
from tests.conftest import NUM_CLASSES, ROOT, replace_teacher, save_teacher
from tests.reads import reads


def _build(cfg, seed=0):
    torch.manual_seed(seed)
    return build_model(cfg)


def _train(model, cfg, batch, steps):
    """`steps` of SGD; the losses of each step."""
    optimizer = build_optimizer(cfg, model)
    history = []
    for _ in range(steps):
        losses = model(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history


def test_without_methods_equals_stock(distill_cfg, batch, storage):
    distill_cfg.DISTILL.METHODS = ()
    ours = _train(_build(distill_cfg), distill_cfg, batch, 3)
    stock = _train(_build(stock_config(distill_cfg)), distill_cfg, batch, 3)
    assert ours == stock


@pytest.mark.parametrize("methods", [("DKD",), ("KD", "DKD")])
def test_own_losses_equal_stock(distill_cfg, batch, storage, methods):
    """With a factor of 0 the weights stay stock's, so every step must agree bit for bit."""
    distill_cfg.DISTILL.METHODS = methods
    for method in methods:
        distill_cfg.DISTILL[method].WEIGHT = 0.0
    ours = _train(_build(distill_cfg), distill_cfg, batch, 3)
    stock = _train(_build(stock_config(distill_cfg)), distill_cfg, batch, 3)
    assert [{k: v for k, v in step.items() if k in stock[0]} for step in ours] == stock
    assert {f"loss_{m.lower()}" for m in methods} == set(ours[0]) - set(stock[0])


def test_own_losses_equal_stock_while_distilling(distill_cfg, batch, storage):
    """With the distillation's own updates: stock, given the same weights, gives the same losses."""
    model, stock = _build(distill_cfg), build_model(stock_config(distill_cfg))
    stock.train()
    optimizer = build_optimizer(distill_cfg, model)
    for step in range(3):
        stock.load_state_dict(model.state_dict())
        torch.manual_seed(step)
        expected = stock(batch)
        torch.manual_seed(step)
        losses = model(batch)
        assert losses["loss_dkd"] > 0
        assert all(torch.equal(losses[name], loss) for name, loss in expected.items())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()


def test_distillation_changes_the_student(distill_cfg, batch, storage):
    with_ea = _build(distill_cfg)
    _train(with_ea, distill_cfg, batch, 2)
    distill_cfg.DISTILL.METHODS = ()
    without = _build(distill_cfg)
    _train(without, distill_cfg, batch, 2)
    name = "roi_heads.box_predictor.cls_score.weight"
    assert not torch.equal(with_ea.state_dict()[name], without.state_dict()[name])


def test_heads_run_once_a_step(distill_cfg, batch, storage):
    model = _build(distill_cfg)
    model(batch)  # prepares the teacher
    theirs = model.teacher.model
    with record(
        backbone=model.backbone,
        head=model.roi_heads.box_head,
        teacher_backbone=theirs.backbone,
        teacher_head=theirs.roi_heads.box_head,
        teacher_rpn=theirs.proposal_generator,
    ) as calls:
        model(batch)
    assert {name: len(c) for name, c in calls.items()} == {
        "backbone": 1,
        "head": 1,
        "teacher_backbone": 1,
        "teacher_head": 1,
        "teacher_rpn": 0,
    }


def test_teacher_stays_as_it_was(distill_cfg, batch, storage):
    model = _build(distill_cfg)
    model(batch)  # prepares the teacher
    before = copy.deepcopy(model.teacher.model.state_dict())
    model.train()
    _train(model, distill_cfg, batch, 5)
    after = model.teacher.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not model.teacher.model.training
    assert all(p.grad is None for p in model.teacher.model.parameters())


@pytest.mark.parametrize(("methods", "what"), [(("DKD",), "logits"), (("REVIEWKD",), "maps")])
def test_teacher_is_prepared_on_the_first_batch(distill_cfg, batch, storage, caplog, methods, what):
    distill_cfg.DISTILL.METHODS, distill_cfg.DISTILL.EA.ENABLED = methods, False
    model = _build(distill_cfg)
    with caplog.at_level(logging.INFO):
        model(batch), model(batch)
    [message] = [r.message for r in caplog.records if "prepared teacher" in r.message]
    assert f"The prepared teacher's {what} differ" in message
    assert model.teacher.is_prepared
    has_p6 = "p6" in model.teacher.features(batch, "RGB")
    assert has_p6 == (what == "maps")


def test_a_fast_teacher_teaches_the_same(distill_cfg, batch, storage):
    model = _build(distill_cfg)
    model(batch)
    fast = model.teacher
    distill_cfg.TEACHER.FAST = False
    plain = _build(distill_cfg).teacher
    losses = []
    for model.teacher in (fast, plain):
        torch.manual_seed(1)
        losses.append({name: loss.item() for name, loss in model(batch).items()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def _reads(function, iteration):
    torch.manual_seed(1)
    with EventStorage(iteration), reads() as names:
        function()
    return len(names)


def _make_rcnn(cfg, teacher_files):
    cfg.MODEL.META_ARCHITECTURE = "DistillRCNN"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.TEACHER.CONFIG_FILE, cfg.TEACHER.WEIGHTS = teacher_files


@pytest.mark.parametrize("architecture", ["R-CNN", "RetinaNet"])
def test_no_scalar_is_read_back_but_for_the_log(
    distill_cfg, retina_cfg, teacher_files, batch, storage, architecture
):
    cfg = retina_cfg
    if architecture == "R-CNN":
        _make_rcnn(cfg, teacher_files)
        cfg.DISTILL.METHODS = ("KD", "DKD", "REVIEWKD")
    model, stock = _build(cfg), _build(stock_config(cfg))
    model(batch)  # prepares the teacher
    # What stock code pads images with is a number in a tensor on the CPU, whatever the device.
    padding = _reads(lambda: model.teacher.model.preprocess_image(batch), 3)

    def step(model, iteration):
        return _reads(lambda: sum(model(batch).values()).backward(), iteration)

    assert step(model, iteration=3) == step(stock, iteration=3) + padding
    assert step(model, iteration=19) > step(stock, iteration=19) + padding


def test_the_fast_config(distill_cfg, batch, storage, graphs):
    """Its own keys: mixed precision, and a compiled teacher in half precision."""
    fast = yaml.safe_load((ROOT / "configs/COCO-Detection/EA-DKD-R18-R101-fast.yaml").read_text())
    for node in ("TEACHER", "SOLVER"):
        distill_cfg[node].merge_from_other_cfg(CfgNode(fast[node]))
    model = _build(distill_cfg)
    with torch.autocast("cpu", getattr(torch, distill_cfg.SOLVER.AMP.DTYPE)):
        losses = model(batch)
    assert len(graphs) == 1
    assert losses["loss_dkd"] > 0
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_teacher_is_in_no_state_and_no_optimizer(distill_cfg):
    model = _build(distill_cfg)
    stock = build_model(stock_config(distill_cfg))
    assert list(model.state_dict()) == list(stock.state_dict())
    theirs = {id(p) for p in model.teacher.model.parameters()}
    groups = build_optimizer(distill_cfg, model).param_groups
    assert not theirs & {id(p) for group in groups for p in group["params"]}


def test_teacher_follows_the_student(distill_cfg):
    model = _build(distill_cfg).double()
    assert next(model.teacher.model.parameters()).dtype == torch.float64


def _is_alike(model, other, batch):
    losses = []
    for m in (model, other):
        torch.manual_seed(1)
        losses.append({name: loss.item() for name, loss in m(batch).items()})
    return losses[0] == losses[1]


def test_copies_share_the_teacher(distill_cfg, batch, storage):
    """As a moving average of the weights makes them, and moves them to where there is room."""
    distill_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    model = _build(distill_cfg)
    model(batch)  # prepares the teacher
    average = AveragedModel(model)
    other = average.module
    assert other.teacher is model.teacher
    assert other.backbone is not model.backbone and other.adapters is not model.adapters
    assert _is_alike(model, other, batch)
    other.to("meta")
    assert model.teacher.model.device == model.device == torch.device("cpu")
    assert _is_alike(model, copy.deepcopy(model), batch)


def test_pickled_with_the_teacher(distill_cfg, batch, storage, graphs):
    """A process that gets the model goes on with it; what was compiled is compiled there again."""
    distill_cfg.TEACHER.COMPILE = 128
    model = _build(distill_cfg)
    model(batch)
    other = pickle.loads(pickle.dumps(model))
    assert other.teacher is not model.teacher
    assert _is_alike(model, other, batch)
    assert other.double().teacher.model.pixel_mean.dtype == torch.float64


def test_precise_bn_runs_no_teacher_and_draws_nothing(distill_cfg, batch, storage):
    distill_cfg.MODEL.RESNETS.NORM, distill_cfg.VIS_PERIOD = "BN", 1
    model = _build(distill_cfg)
    before = {k: x.clone() for k, x in model.named_buffers() if "running_mean" in k}
    drawn = []
    model.visualize_training = lambda *_: drawn.append("stock")
    model._draw = lambda *_: drawn.append("ours")
    with record(teacher=model.teacher.model.backbone) as calls:
        PreciseBN(1, model, itertools.repeat(batch), 3).update_stats()
    assert not calls["teacher"] and not drawn
    assert any(not torch.equal(dict(model.named_buffers())[k], x) for k, x in before.items())
    model(batch)
    assert drawn == ["stock", "ours"], "pictures go on afterwards"


@pytest.mark.parametrize("train_on_pred_boxes", [False, True])
def test_loss_is_that_of_the_sampled_rois(distill_cfg, batch, storage, train_on_pred_boxes):
    """Recomputed by hand from what the heads saw; TRAIN_ON_PRED_BOXES must not move the boxes."""
    distill_cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES = train_on_pred_boxes
    distill_cfg.DISTILL.METHODS = ("KD", "DKD")
    model = _build(distill_cfg)
    heads, theirs = model.roi_heads, model.teacher.model.roi_heads
    with record(
        pooler=heads.box_pooler,
        predictor=heads.box_predictor,
        teacher=theirs.box_predictor,
        heads=heads,
        **{f"level{i}": p for i, p in enumerate(theirs.box_pooler.level_poolers)},
    ) as calls:
        losses = model(batch)
    seen = torch.cat([calls[f"level{i}"][-1].args[1] for i in range(4)])
    for image, boxes in enumerate(calls["pooler"][0].args[1]):
        pooled = seen[seen[:, 0] == image, 1:]
        assert sorted(boxes.tensor.tolist()) == sorted(pooled.tolist())
    student, teacher = calls["predictor"][0].output[0], calls["teacher"][-1].output[0]
    labels = torch.cat([p.gt_classes for p in calls["heads"][0].output[0]])
    weight = entropy_weight(student, teacher)
    assert torch.equal(losses["loss_kd"], kd_loss(student, teacher, weight=weight))
    assert torch.equal(losses["loss_dkd"], dkd_loss(student, teacher, labels, weight=weight))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DISTILL.DKD.WEIGHT", 2.0),
        ("DISTILL.DKD.ALPHA", 2.0),
        ("DISTILL.DKD.BETA", 2.0),
        ("DISTILL.DKD.TEMPERATURE", 2.0),
        ("DISTILL.KD.WEIGHT", 2.0),
        ("DISTILL.KD.TEMPERATURE", 2.0),
        ("DISTILL.EA.ENABLED", False),
        ("DISTILL.EA.MODE", "teacher"),
        ("DISTILL.EA.MODE", "matched"),
        ("DISTILL.EA.MODE", "normalized"),
        ("DISTILL.EA.BACKGROUND", "unweighted"),
        ("DISTILL.EA.BACKGROUND", "ignored"),
        ("DISTILL.EA.TEMPERATURE", 2.0),
        ("DISTILL.EA.BOUND", 100.0),
    ],
)
def test_each_option_changes_its_loss(distill_cfg, batch, storage, key, value):
    distill_cfg.DISTILL.METHODS = ("KD", "DKD")

    def losses():
        model = _build(distill_cfg)
        torch.manual_seed(1)
        return {k: v.item() for k, v in model(batch).items() if k in ("loss_kd", "loss_dkd")}

    before = losses()
    distill_cfg.merge_from_list([key, value])
    after = losses()
    changed = {name for name in before if before[name] != after[name]}
    node = key.split(".")[1]
    assert changed == ({"loss_kd", "loss_dkd"} if node == "EA" else {f"loss_{node.lower()}"})


@pytest.mark.parametrize(
    ("mode", "background"),
    [
        ("full", "weighted"),
        ("teacher", "weighted"),
        ("matched", "weighted"),
        ("normalized", "ignored"),
        ("full", "unweighted"),
    ],
)
def test_modes(distill_cfg, batch, storage, mode, background):
    distill_cfg.DISTILL.EA.MODE, distill_cfg.DISTILL.EA.BACKGROUND = mode, background
    model = _build(distill_cfg)
    with record(
        ours=model.roi_heads.box_predictor,
        theirs=model.teacher.model.roi_heads.box_predictor,
        heads=model.roi_heads,
    ) as calls:
        loss = model(batch)["loss_dkd"]
    student, teacher = calls["ours"][0].output[0], calls["theirs"][0].output[0]
    labels = torch.cat([p.gt_classes for p in calls["heads"][0].output[0]])
    full, is_background = entropy_weight(student, teacher), labels == student.shape[1] - 1
    mean = (full if background == "weighted" else full[~is_background]).mean()
    weight = {
        "full": full,
        "teacher": entropy(teacher, temperature=3.0),
        "matched": mean.repeat(len(labels)),
        "normalized": full / mean,
    }[mode]
    if background != "weighted":
        weight[is_background] = float(background == "unweighted")
    torch.testing.assert_close(loss, dkd_loss(student, teacher, labels, weight=weight))


@pytest.mark.parametrize("background", ["unweighted", "ignored"])
def test_background_of_anchors_and_images(retina_cfg, batch, storage, background):
    """Anchors of a RetinaNet; an image without objects has the weight of background."""
    retina_cfg.DISTILL.EA.BACKGROUND = background
    batch[1]["instances"] = batch[1]["instances"][:0]
    model, seen = _build(retina_cfg), []
    weigh = model.objective.weigh
    model.objective.weigh = lambda pairs: (seen.extend(pairs), weigh(pairs))[1]
    losses = model(batch)
    [pair], of_background = seen, float(background == "unweighted")
    assert pair.sample_weight[pair.labels == NUM_CLASSES].eq(of_background).all()
    is_object = pair.labels < NUM_CLASSES
    assert is_object.any() and (pair.images()[is_object] == 0).all()
    full = combine_entropies(*pair.entropies(3.0), 2)[is_object]
    torch.testing.assert_close(pair.sample_weight[is_object], full)
    expected = torch.stack([full.mean(), full.new_tensor(of_background)])
    torch.testing.assert_close(pair.image_weight(2), expected)
    assert all(loss.isfinite() for loss in losses.values())


def test_images_without_objects(distill_cfg, batch, storage):
    for x in batch:
        x["instances"] = x["instances"][:0]
    losses = _build(distill_cfg)(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_no_roi_at_all(distill_cfg, batch, storage):
    """RPN proposals switched off and no ground truth: a zero that is joined to the graph."""
    distill_cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 0
    for x in batch:
        x["instances"] = x["instances"][:0]
    loss = _build(distill_cfg)(batch)["loss_dkd"]
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(distill_cfg, batch, storage, dtype):
    distill_cfg.DISTILL.METHODS = ("KD", "DKD")
    model = _build(distill_cfg)
    with torch.autocast("cpu", dtype=dtype):
        losses = model(batch)
    assert losses["loss_kd"].dtype == losses["loss_dkd"].dtype == torch.float32
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(("precision", "rtol"), [(None, 1e-4), (torch.bfloat16, 0.1)])
def test_channels_last(distill_cfg, batch, storage, precision, rtol):
    """Another memory format of student and teacher gives the same losses."""
    distill_cfg.DISTILL.METHODS = ("KD", "DKD", "REVIEWKD")
    models = [_build(distill_cfg), _build(distill_cfg)]
    models[1].to(memory_format=torch.channels_last)
    weight = models[1].teacher.model.backbone.fpn_output2.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    losses = []
    for model in models:
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
            losses.append(model(batch))
    torch.testing.assert_close(losses[1], losses[0], rtol=rtol, atol=rtol / 10)
    sum(losses[1].values()).backward()
    assert all(p.grad.isfinite().all() for p in models[1].parameters() if p.grad is not None)


def test_saturated_logits(distill_cfg, batch, storage):
    distill_cfg.DISTILL.METHODS = ("KD", "DKD")
    distill_cfg.DISTILL.EA.ENABLED = False  # the weight of a saturated teacher is 0
    model = _build(distill_cfg)
    for owner in (model, model.teacher.model):
        scores = owner.roi_heads.box_predictor.cls_score
        with torch.no_grad():
            scores.bias.copy_(torch.linspace(-1e4, 1e4, len(scores.bias)))
            scores.bias.copy_(scores.bias.roll(1 if owner is model else 0))
    losses = model(batch)
    sum(losses.values()).backward()
    assert losses["loss_kd"] > 1000
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_inference_is_stock(distill_cfg, batch):
    model = _build(distill_cfg).eval()
    stock = build_model(stock_config(distill_cfg)).eval()
    stock.load_state_dict(model.state_dict())
    with torch.no_grad():
        for ours, theirs in zip(model(batch), stock(batch), strict=True):
            assert isinstance(ours["instances"], Instances)
            for field, value in theirs["instances"].get_fields().items():
                mine = ours["instances"].get(field)
                assert torch.equal(*(getattr(v, "tensor", v) for v in (mine, value)))


def test_statistics_only_when_they_are_written(distill_cfg, batch, storage):
    model = _build(distill_cfg)
    model(batch)
    assert not [key for key in storage.latest() if key.startswith("distill/")]
    storage.iter = 19
    model(batch)
    assert storage.latest()["distill/background/w_ea"][0] > 0


def test_pictures_of_the_weights(distill_cfg, batch, storage):
    """Also on data with fewer classes than the model."""
    MetadataCatalog.get("two_classes").thing_classes = ["cat", "dog"]
    distill_cfg.DATASETS.TRAIN = ("two_classes",)
    distill_cfg.VIS_PERIOD = 2
    model = _build(distill_cfg)
    storage.iter = 1
    model(batch)
    assert not storage._vis_data
    storage.iter = 2
    model(batch)
    [(_, picture, _)] = [x for x in storage._vis_data if x[0] == "distill/w_ea"]
    assert picture.shape[0] == 3
    assert picture.std() > 0


def _objects(seen):
    """Tell of each sample whether the teacher is right, and whether it is an object."""
    logits, labels = seen
    is_object = torch.isin(labels, torch.tensor([0, 4]))  # those of `batch`
    return is_object & (logits.argmax(dim=1) == labels), is_object


@pytest.mark.parametrize("architecture", ["R-CNN", "RetinaNet"])
def test_objects_that_the_teacher_calls_otherwise(
    teacher_files, retina_cfg, batch, storage, caplog, architecture
):
    """It is told when statistics are, and enough objects were seen."""
    caplog.set_level(logging.INFO)
    if architecture == "R-CNN":
        _make_rcnn(retina_cfg, teacher_files)
    retina_cfg.DISTILL.METHODS = ("KD",)
    model = _build(retina_cfg)
    seen = []
    count = model.objective.agreement.count
    model.objective.agreement.count = lambda *args: (seen.append(args), count(*args))
    storage.iter = 18
    while sum(is_object.sum() for _, is_object in map(_objects, seen)) < ENOUGH:
        model(batch)
    assert "as their label" not in caplog.text
    storage.iter = 19
    model(batch)
    model(batch)
    number = sum(is_object.sum() for _, is_object in map(_objects, seen))
    right = sum(is_right.sum() for is_right, _ in map(_objects, seen))
    [told] = [r for r in caplog.records if "as their label" in r.message]
    assert told.levelno == (logging.WARNING if right < number / 2 else logging.INFO)
    text = f"classifies {100 * right / number:.0f} % of {number} training objects as their label"
    assert text in told.message


# The teacher of the next batch.


def _calls_of_teacher(model, function):
    with record(teacher=model.teacher.model.backbone) as calls:
        function()
    return len(calls["teacher"])


def test_look_ahead(distill_cfg, batch, storage):
    """Its features are those of the same images, in whichever lists and dicts these come."""
    distill_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    model, other = _build(distill_cfg), _build(distill_cfg)
    model(batch), other(batch)  # prepares the teacher
    assert _calls_of_teacher(model, lambda: model.look_ahead(batch)) == 1
    [moved] = _recursive_to([dict(x) for x in batch], torch.device("cpu"), False)  # as DDP does
    are_alike = []
    calls = _calls_of_teacher(model, lambda: are_alike.append(_is_alike(model, other, moved)))
    assert calls == 0 and are_alike == [True]
    assert _calls_of_teacher(model, lambda: model(moved)) == 1, "they are taken once"


def test_look_ahead_at_another_batch(distill_cfg, batch, storage):
    model, other = _build(distill_cfg), _build(distill_cfg)
    model(batch), other(batch)  # prepares the teacher
    model.look_ahead(batch)
    assert _is_alike(model, other, batch[:1]), "the first image alone"
    equal = [{**x, "image": x["image"].clone()} for x in batch]
    assert _calls_of_teacher(model, lambda: model(equal)) == 1
    for _ in range(5):
        model.look_ahead(equal)
    assert len(model.teacher._started) == 2, "the present batch and the next"


def test_look_ahead_keeps_the_levels_that_are_needed(distill_cfg, retina_cfg, batch, storage):
    for cfg in (distill_cfg, retina_cfg):
        model = _build(cfg)
        model(batch)  # prepares the teacher
        model.teacher_levels = sorted(model.teacher_levels)[1:]
        model.look_ahead(batch)
        [(_, finish)] = model.teacher._started
        assert sorted(finish()) == model.teacher_levels


def test_no_look_ahead(distill_cfg, batch, storage):
    def number(model):
        return _calls_of_teacher(model, lambda: model.look_ahead(batch))

    model = _build(distill_cfg)
    assert number(model) == 0, "it is not prepared"
    model(batch)
    with torch.no_grad():
        assert number(model) == 0
    assert number(model.eval()) == 0
    assert number(model.train()) == 1
    model.teacher.ahead = False
    assert number(model) == 0
    distill_cfg.TEACHER.AHEAD = False
    assert not _build(distill_cfg).teacher.ahead
    distill_cfg.DISTILL.METHODS = ()
    _build(distill_cfg).look_ahead(batch)


def test_copies_compute_anew(distill_cfg, batch, storage):
    model = _build(distill_cfg)
    model(batch)  # prepares the teacher
    model.look_ahead(batch)
    other = pickle.loads(pickle.dumps(model))
    assert not other.teacher._started and model.teacher._started
    assert _is_alike(model, other, batch)
    model.look_ahead(batch)
    average = AveragedModel(model).module
    assert average.teacher is model.teacher
    assert _is_alike(average, model, batch)


# Other methods and detectors.


def _check_student_is_stock(cfg, batch, names):
    """`names` are the losses beside stock's own, which are stock's bit for bit."""
    model, stock = _build(cfg), build_model(stock_config(cfg))
    stock.train()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("adapters.")}
    stock.load_state_dict(state)
    torch.manual_seed(3)
    expected = stock(batch)
    torch.manual_seed(3)
    losses = model(batch)
    assert all(torch.equal(losses[name], loss) for name, loss in expected.items())
    assert losses.keys() - expected.keys() == names
    assert all(losses[name] > 0 for name in names)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.adapters.parameters())
    return model, losses


def test_reviewkd(distill_cfg, batch, storage):
    distill_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    model, _ = _check_student_is_stock(distill_cfg, batch, {"loss_dkd", "loss_reviewkd"})
    assert [ours for ours, _ in model.maps.levels] == ["p2", "p3", "p4", "p5", "p6"]
    assert _build(distill_cfg).adapters.REVIEWKD.abfs[0].conv2[0].weight.shape[0] == 24


def test_reviewkd_is_weighted_by_the_images(distill_cfg, batch, storage):
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    model = _build(distill_cfg)
    theirs = model.teacher.model
    with record(
        features=model.backbone,
        logits=model.roi_heads.box_predictor,
        teacher_features=theirs.backbone,
        teacher_logits=theirs.roi_heads.box_predictor,
        pooler=model.roi_heads.box_pooler,
        fusion=model.adapters.REVIEWKD,
    ) as calls:
        losses = model(batch)
    weight = entropy_weight(calls["logits"][0].output[0], calls["teacher_logits"][0].output[0])
    counts = [len(boxes) for boxes in calls["pooler"][0].args[1]]
    per_image = torch.stack([part.mean() for part in weight.split(counts)])
    fused, teacher = calls["fusion"][0].output, calls["teacher_features"][0].output
    expected = hcl_loss(fused, list(teacher.values()), weight=per_image)
    torch.testing.assert_close(losses["loss_reviewkd"], expected)


def test_features_alone_need_no_logits(distill_cfg, batch, storage):
    """Without EA the teacher's heads do not run, and may be of any kind."""
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    distill_cfg.DISTILL.EA.ENABLED = False
    distill_cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE = True
    model = _build(distill_cfg)
    with record(head=model.teacher.model.roi_heads.box_head) as calls:
        assert model(batch)["loss_reviewkd"] > 0
    assert not calls["head"]


def test_one_small_image(distill_cfg, batch, storage):
    """p6 of one image of 64 pixels is 1 x 1: batch norm has one value a channel."""
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    x = batch[0]
    x["image"] = x["image"][:, :64, :64]
    x["instances"] = Instances((64, 64), **x["instances"].get_fields())
    x["instances"].gt_boxes.clip((64, 64))
    losses = _build(distill_cfg)([x])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("method", ["KD", "DKD"])
def test_standardize(distill_cfg, batch, storage, method):
    distill_cfg.DISTILL.METHODS = (method,)

    def loss(is_standardized):
        distill_cfg.DISTILL[method].STANDARDIZE = is_standardized
        model = _build(distill_cfg)
        torch.manual_seed(1)
        return model(batch)[f"loss_{method.lower()}"]

    assert loss(True) != loss(False)


def _mask(cfg):
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8


def test_mask_rcnn(distill_cfg, teacher_cfg, batch, storage, tmp_path):
    _mask(distill_cfg)
    teacher_cfg = teacher_cfg.clone()
    _mask(teacher_cfg)
    distill_cfg.TEACHER.CONFIG_FILE, distill_cfg.TEACHER.WEIGHTS = save_teacher(
        teacher_cfg, tmp_path
    )
    for x in batch:
        height, width = x["instances"].image_size
        masks = torch.zeros(len(x["instances"]), height, width, dtype=torch.bool)
        masks[:, 20:50, 20:50] = True
        x["instances"].gt_masks = BitMasks(masks)
    _, losses = _check_student_is_stock(distill_cfg, batch, {"loss_dkd"})
    assert "loss_mask" in losses


CASCADE = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"]
CASCADE += [True]


@pytest.mark.parametrize("of_teacher", [3, 1])
def test_cascade_rcnn(distill_cfg, teacher_cfg, batch, storage, tmp_path, of_teacher):
    """Each stage learns with that stage's labels; a teacher without stages answers in each."""
    if of_teacher == 3:
        replace_teacher(distill_cfg, teacher_cfg, CASCADE, tmp_path)
    distill_cfg.merge_from_list(CASCADE)
    distill_cfg.DISTILL.EA.ENABLED = False
    names = {f"loss_dkd_stage{stage}" for stage in range(3)}
    model, _ = _check_student_is_stock(distill_cfg, batch, names)
    heads, theirs = model.roi_heads, model.teacher.model.roi_heads
    predictors = {f"head{i}": heads.box_predictor[i] for i in range(3)}
    seen = {f"seen{i}": heads.box_predictor[i].losses for i in range(3)}
    teachers = list(theirs.box_predictor) if of_teacher == 3 else [theirs.box_predictor]
    answers = {f"teacher{i}": t for i, t in enumerate(teachers)}
    with record(**predictors, **seen, **answers) as calls:
        losses = model(batch)
    for stage in range(3):
        student = calls[f"head{stage}"][0].output[0]
        labels = torch.cat([p.gt_classes for p in calls[f"seen{stage}"][0].args[1]])
        call = calls[f"teacher{stage}"][0] if of_teacher == 3 else calls["teacher0"][stage]
        expected = dkd_loss(student, call.output[0], labels)
        torch.testing.assert_close(losses[f"loss_dkd_stage{stage}"], expected)


def test_a_cascade_teaches_a_single_stage(distill_cfg, teacher_cfg, batch, storage, tmp_path):
    replace_teacher(distill_cfg, teacher_cfg, CASCADE, tmp_path)
    model, _ = _check_student_is_stock(distill_cfg, batch, {"loss_dkd"})
    with record(last=model.teacher.model.roi_heads.box_predictor[2]) as calls:
        model(batch)
    assert not calls["last"], "the first stage sees what the student sees: RPN proposals"


def test_retinanet(retina_cfg, batch, storage):
    model, _ = _check_student_is_stock(retina_cfg, batch, {"loss_kd", "loss_reviewkd"})
    assert [ours for ours, _ in model.maps.levels] == ["p3", "p4", "p5", "p6", "p7"]


@pytest.mark.parametrize("compile_to", [0, 128])
def test_equal_networks_agree(retina_cfg, batch, storage, graphs, tmp_path, compile_to):
    """Also where the teacher's images are padded further than the student's: 160 becomes 256."""
    retina_cfg.TEACHER.COMPILE = compile_to
    retina_cfg.DISTILL.METHODS = ("KD",)
    student = stock_config(retina_cfg)
    teacher = _build(student, seed=7)
    for name, buffer in teacher.named_buffers():
        if name.endswith("norm.bias"):  # what is padded is not zero behind a norm
            buffer.uniform_(-0.2, 0.2)
    nn.init.normal_(teacher.head.cls_score.weight)
    torch.save({"model": teacher.state_dict()}, tmp_path / "same.pth")
    (tmp_path / "same.yaml").write_text(student.dump())
    retina_cfg.TEACHER.CONFIG_FILE = str(tmp_path / "same.yaml")
    retina_cfg.TEACHER.WEIGHTS = str(tmp_path / "same.pth")
    model = _build(retina_cfg)
    model.load_state_dict(teacher.state_dict())
    image = torch.randint(0, 256, (3, 150, 150), dtype=torch.uint8)
    instances = Instances((150, 150), **batch[0]["instances"].get_fields())
    losses = model([{"image": image, "instances": instances}])
    assert len(graphs) == (1 if compile_to else 0)
    assert losses["loss_kd"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_retinanet_loss_is_over_the_anchors_that_count(retina_cfg, batch, storage, is_weighted):
    retina_cfg.DISTILL.METHODS = ("KD",)
    retina_cfg.DISTILL.EA.ENABLED = is_weighted
    model = _build(retina_cfg)
    theirs = model.teacher.model.head
    with record(losses=model.losses, teacher=theirs.cls_score, boxes=theirs.bbox_pred) as calls:
        got = model(batch)["loss_kd"]
    _, logits, labels, *_ = calls["losses"][0].args
    teacher = [
        x.view(2, -1, model.num_classes, *x.shape[-2:]).permute(0, 3, 4, 1, 2).flatten(1, 3)
        for x in [call.output for call in calls["teacher"]]
    ]
    assert not calls["boxes"], "what is not compared is not computed"
    student, teacher = torch.cat(logits, dim=1), torch.cat(teacher, dim=1)
    assert any((of_image < 0).any() for of_image in labels), "some anchors are ignored"
    total = 0.0
    for n, of_image in enumerate(labels):
        for i in (of_image >= 0).nonzero().flatten():
            pair = student[n, i, None], teacher[n, i, None]
            loss = bernoulli_kd_loss(*pair)
            if is_weighted:
                h_s, h_t = (bernoulli_entropy(z, temperature=3.0) for z in pair)
                loss = loss * (h_t * (1 + h_s / math.log(2)) / 2).detach()
            total = total + loss
    torch.testing.assert_close(got, total.sum() / model.loss_normalizer)


def test_retinanet_statistics_and_pictures(retina_cfg, batch, storage):
    retina_cfg.VIS_PERIOD = 1
    model = _build(retina_cfg)
    storage.iter = 19
    model(batch)
    assert 0 < storage.latest()["distill/background/w_ea"][0] < math.log(2)
    assert "distill/w_ea" in [x[0] for x in storage._vis_data]

import copy
import logging

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.config.defaults import stock_config
from eakd_det.losses import hcl_loss
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError
from tests.conftest import replace_teacher

RES4, RES5 = "backbone.bottom_up.res4", "backbone.bottom_up.res5"


@pytest.fixture
def cfg(distill_cfg):
    """The tiny detectors with ReviewKD on two stages of their backbones."""
    distill_cfg.DISTILL.METHODS, distill_cfg.DISTILL.EA.ENABLED = ("REVIEWKD",), False
    distill_cfg.DISTILL.FEATURES = ((RES5, RES5), RES4)
    return distill_cfg


def _build(cfg):
    torch.manual_seed(0)
    return build_model(cfg)


def _named(cfg, *features):
    cfg.DISTILL.FEATURES = features
    return _build(cfg)


def _stages(model):
    return {"res4": model.backbone.bottom_up.res4, "res5": model.backbone.bottom_up.res5}


def test_outputs_of_the_modules_are_compared_finest_first(cfg, batch, storage):
    model = _build(cfg)
    fusion = model.adapters.REVIEWKD
    assert model.maps.channels == [[256, 512], [64, 128]]
    model(batch)  # prepares the teacher
    with record(**_stages(model), fusion=fusion) as calls:
        loss = model(batch)["loss_reviewkd"]
    with record(**_stages(model.teacher.model)) as of_teacher:
        model.teacher.features(batch, "RGB")
    ours, theirs = ([x[n][0].output for n in ("res4", "res5")] for x in (calls, of_teacher))
    given, shapes = calls["fusion"][0].args
    assert all(x is y for x, y in zip(given, ours, strict=True))
    assert shapes == [x.shape[-2:] for x in theirs]
    torch.testing.assert_close(loss, hcl_loss(calls["fusion"][0].output, theirs))
    loss.backward()
    assert all(p.grad is not None for p in fusion.parameters())
    assert model.backbone.bottom_up.res4[0].conv1.weight.grad.any()
    assert model.backbone.fpn_output5.weight.grad is None, "the levels are not compared"


@pytest.mark.parametrize("method", ["CWD", "PKD", "MGD", "FGD"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_maps_of_other_channels_and_sizes(cfg, batch, storage, method, is_weighted):
    """Stride 4 is compared with 8, and 32 with 16."""
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = (method,), is_weighted
    pairs = [["backbone.bottom_up.res2", "backbone.bottom_up.res3"], [RES5, RES4]]
    model = _named(cfg, *pairs)
    losses = model(batch)
    assert losses[f"loss_{method.lower()}"] > 0
    sum(losses.values()).backward()
    assert model.backbone.bottom_up.res5[0].conv1.weight.grad.any()
    assert all(p.grad is not None for p in model.adapters.parameters())


@pytest.mark.parametrize("names", [(RES4, RES5), ([RES5, RES4],)])
def test_a_teacher_that_pads_further(cfg, batch, storage, names):
    """Maps are cropped to what both networks cover; of other strides methods resize them."""
    model, seen = _named(cfg, *names), []
    model.objective.losses = lambda batch, _: seen.append(batch) or {}
    for square in (0, 256):
        model.teacher.model.backbone._square_pad = square
        model(batch)
    assert seen[1].padded_size == seen[0].padded_size
    small, large = ([x.shape[-1] for x in batch.teacher_features] for batch in seen)
    assert [x.shape[-1] for x in seen[1].student_features] == [8, 4][-len(names) :]
    assert large == small == ([8, 4] if len(names) == 2 else [8])


def test_images_are_weighted_by_their_rois(cfg, batch, storage):
    cfg.DISTILL.EA.ENABLED = True
    model, losses = _build(cfg), {}
    objective = model.objective
    for mode in (True, False):
        objective.is_weighted = mode
        torch.manual_seed(1)
        losses[mode] = model(batch)["loss_reviewkd"].item()
    assert 0 < losses[True] != losses[False]


def test_the_student_is_the_same_as_without(cfg, batch, storage):
    """Initialisation, running statistics, modes and random state, with batch norms that move."""
    cfg.MODEL.RESNETS.NORM = "BN"
    named, state = _build(cfg), torch.get_rng_state()
    cfg.DISTILL.FEATURES = ()
    plain = _build(cfg)
    assert torch.equal(state, torch.get_rng_state())
    ours = {n: x for n, x in named.state_dict().items() if not n.startswith("adapters")}
    assert all(torch.equal(x, plain.state_dict()[name]) for name, x in ours.items())
    modes = ({n: m.training for n, m in x.backbone.named_modules()} for x in (named, plain))
    assert next(modes) == next(modes)
    stock = build_model(stock_config(cfg))
    stock.load_state_dict(ours)
    losses = []
    for model in (named, stock):
        torch.manual_seed(1)
        losses.append({n: x.item() for n, x in model(batch).items()})
    assert losses[0].pop("loss_reviewkd") > 0
    assert losses[0] == losses[1]


def test_features_begun_ahead_of_time_are_the_same(cfg, batch, storage):
    """As in a copy of the model, which has the same teacher."""
    model = _build(cfg)
    model(batch)
    losses = []
    for ahead in (True, False):
        if ahead:
            model.look_ahead(batch)
            assert sorted(model.teacher._started[0][1]()) == [RES4, RES5]
        with record(backbone=model.teacher.model.backbone) as calls:
            torch.manual_seed(1)
            losses.append(model(batch)["loss_reviewkd"].item())
        assert len(calls["backbone"]) == (0 if ahead else 1)
    torch.manual_seed(1)
    losses.append(copy.deepcopy(model)(batch)["loss_reviewkd"].item())
    assert losses[0] == losses[1] == losses[2]


def test_with_logits_the_heads_get_their_levels(cfg, batch, storage):
    cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    model = _build(cfg)
    losses = model(batch)
    assert losses["loss_dkd"] > 0 and losses["loss_reviewkd"] > 0
    assert model.teacher_levels == {"p2", "p3", "p4", "p5", RES4, RES5}
    assert "p6" not in model.teacher.features(batch, "RGB"), "the RPN's level is left out"


def test_without_a_method_on_features_names_are_not_read(cfg, batch, storage):
    cfg.DISTILL.METHODS = ("DKD",)
    assert _named(cfg, "no such module")(batch)["loss_dkd"] > 0


@pytest.mark.parametrize("fast", [True, False])
def test_a_named_norm_is_not_fused(cfg, teacher_cfg, batch, storage, tmp_path, caplog, fast):
    replace_teacher(cfg, teacher_cfg, ["MODEL.FPN.NORM", "BN"], tmp_path)
    cfg.TEACHER.FAST = fast
    model = _named(cfg, ["backbone.fpn_output4", "backbone.fpn_output4.norm"])
    with caplog.at_level(logging.INFO):
        model(batch)
    backbone = model.teacher.model.backbone
    assert backbone.fpn_output4.norm is not None
    assert (backbone.fpn_output3.norm is None) == fast
    features = model.teacher.features(batch, "RGB")
    assert features["backbone.fpn_output4.norm"] is features["p4"]


def _error(cfg, *features):
    with pytest.raises(UserError, match="DISTILL.FEATURES") as error:
        _named(cfg, *features)
    return str(error.value)


def test_a_wrong_name_lists_the_nearest(cfg):
    message = _error(cfg, RES4, "backbone.bottom_up.res55")
    assert "the student has no module 'backbone.bottom_up.res55'; the nearest are" in message
    assert RES5 in message
    message = _error(cfg, [RES4, "res4"])
    assert "the teacher has no module 'res4'; the nearest are backbone.bottom_up.res4" in message
    assert "its parts are backbone, proposal_generator, roi_heads" in _error(cfg, "Q")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("backbone", "returns a dict of p2, p3, p4, p5, p6"),
        ("backbone.top_block", "returns a list of 1"),
        ("proposal_generator.rpn_head.conv", "is called 5 times"),
        ("roi_heads.box_head.fc1", "student's roi_heads.box_head.fc1 returns a tensor of shape"),
        ([RES4, "roi_heads.box_head"], "teacher's roi_heads.box_head is not called"),
        (f"{RES4}.0.conv2", "output of the student's backbone.bottom_up.res4.0.conv2 is changed"),
        ([RES4, f"{RES4}.0.conv3"], "output of the teacher's backbone.bottom_up.res4.0.conv3 is"),
        (4, "DISTILL.FEATURES: 4 is neither a name nor a pair"),
    ],
)
def test_what_cannot_be_compared_is_refused(cfg, entry, text):
    assert text in _error(cfg, entry)


def test_other_choices_of_maps_are_refused(cfg):
    cfg.DISTILL.LEVELS = ("p3",)
    assert "DISTILL.LEVELS and DISTILL.FEATURES both choose the maps" in _error(cfg, RES4)
    cfg.DISTILL.LEVELS, cfg.DISTILL.METHODS = (), ("CWD", "FCFD")
    assert "FCFD runs the box heads, which read the FPN's levels" in _error(cfg, RES4)


def test_a_compiled_teacher_is_refused(cfg):
    cfg.TEACHER.COMPILE = 128
    assert "set TEACHER.COMPILE to 0" in _error(cfg, RES4)

"""CWD, PKD, MGD and FGD in detectors."""

import pytest
import torch
from detectron2.modeling import build_model

from eakd_det.config.defaults import stock_config
from eakd_det.losses import cwd_loss, entropy_weight, fgd_loss
from eakd_det.modeling.meta_arch.distilled import adapter_modules
from eakd_det.modeling.recorder import record
from eakd_det.utils.errors import UserError

METHODS = ("CWD", "PKD", "MGD", "FGD")
each_method = pytest.mark.parametrize("method", METHODS)


def _build(cfg, *methods, seed=0, **keys):
    cfg.DISTILL.METHODS = methods
    cfg.merge_from_list([x for pair in keys.items() for x in pair])
    torch.manual_seed(seed)
    return build_model(cfg)


def _losses(model, batch):
    torch.manual_seed(1)
    return model(batch)


@pytest.mark.parametrize("architecture", ["distill_cfg", "retina_cfg"])
@each_method
def test_own_losses_are_stock_s_and_all_modules_learn(
    request, batch, storage, architecture, method
):
    """The teacher has more channels, so that there are adapters."""
    cfg = request.getfixturevalue(architecture)
    model, stock = _build(cfg, method), build_model(stock_config(cfg))
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("adapters.")}
    stock.train().load_state_dict(state)
    expected, losses = _losses(stock, batch), _losses(model, batch)
    name = f"loss_{method.lower()}"
    assert losses.keys() - expected.keys() == {name} and losses[name] > 0
    assert all(torch.equal(losses[key], loss) for key, loss in expected.items())
    losses[name].backward()
    assert any("align" in key for key, _ in model.adapters.named_parameters())
    # Processes wait for a gradient of each, so no parameter may be left without.
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.adapters.parameters())
    assert model.backbone.bottom_up.res5[0].conv1.weight.grad.any()


@each_method
def test_a_few_steps_lower_the_loss(distill_cfg, batch, storage, method):
    distill_cfg.DISTILL[method].WEIGHT = {"CWD": 10.0, "PKD": 6.0, "MGD": 20.0, "FGD": 1.0}[method]
    model = _build(distill_cfg, method)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    history = []
    for _ in range(6):
        loss = _losses(model, batch)[f"loss_{method.lower()}"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < history[0]


@each_method
def test_mixed_precision(distill_cfg, batch, storage, method):
    model = _build(distill_cfg, method)
    with torch.autocast("cpu", torch.bfloat16):
        loss = _losses(model, batch)[f"loss_{method.lower()}"]
    exact = _losses(model, batch)[f"loss_{method.lower()}"]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0)  # of maps in bfloat16
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@each_method
def test_weights_of_the_images_count(distill_cfg, batch, storage, method):
    losses = []
    for is_enabled in (True, False):
        distill_cfg.DISTILL.EA.ENABLED = is_enabled
        losses.append(_losses(_build(distill_cfg, method), batch)[f"loss_{method.lower()}"])
    assert losses[0] != losses[1]


def test_the_weight_is_the_mean_over_an_image_s_rois(distill_cfg, batch, storage):
    model = _build(distill_cfg, "CWD")
    with record(
        features=model.backbone,
        logits=model.roi_heads.box_predictor,
        teacher_features=model.teacher.model.backbone,
        teacher_logits=model.teacher.model.roi_heads.box_predictor,
        pooler=model.roi_heads.box_pooler,
        adapter=model.adapters.CWD,
    ) as calls:
        loss = model(batch)["loss_cwd"]
    weight = entropy_weight(calls["logits"][0].output[0], calls["teacher_logits"][0].output[0])
    counts = [len(boxes) for boxes in calls["pooler"][0].args[1]]
    per_image = torch.stack([part.mean() for part in weight.split(counts)])
    maps = calls["adapter"][0].output, list(calls["teacher_features"][0].output.values())
    torch.testing.assert_close(loss, cwd_loss(*maps, weight=per_image))


def test_fgd_takes_boxes_in_the_padded_image(distill_cfg, batch, storage):
    """Both images, of 96 x 128 and 128 x 96, are padded to 128 x 128."""
    distill_cfg.DISTILL.EA.ENABLED = False
    model = _build(distill_cfg, "FGD")
    teacher = model.teacher.model.backbone
    with record(relation=model.adapters.FGD, teacher=teacher) as calls:
        loss = model(batch)["loss_fgd"]
    maps, contexts = calls["relation"][0].output
    boxes = [x["instances"].gt_boxes.tensor for x in batch]
    targets = list(calls["teacher"][0].output.values())
    expected = fgd_loss(maps, targets, contexts, boxes, [(128, 128)] * 2)
    torch.testing.assert_close(loss, expected)


def test_images_without_boxes(distill_cfg, batch, storage):
    for x in batch:
        x["instances"] = x["instances"][:0]
    losses = _losses(_build(distill_cfg, *METHODS), batch)
    assert all(losses[f"loss_{method.lower()}"].isfinite() for method in METHODS)


@each_method
def test_options_count(distill_cfg, batch, storage, method):
    def loss():
        return _losses(_build(distill_cfg, method), batch)[f"loss_{method.lower()}"].item()

    before = loss()
    for key, value in distill_cfg.DISTILL[method].items():
        distill_cfg.DISTILL[method][key] = value * 0.5
        assert loss() != before, key
        distill_cfg.DISTILL[method][key] = value


def test_levels(distill_cfg, batch, storage):
    model = _build(distill_cfg, "CWD", **{"DISTILL.LEVELS": ("p4", "p2")})
    assert [name for name, _ in model.maps.levels] == ["p2", "p4"]
    assert len(model.adapters.CWD.align) == 2
    with record(adapter=model.adapters.CWD) as calls:
        model(batch)
    assert [x.shape[-1] for x in calls["adapter"][0].output] == [32, 8]
    with pytest.raises(UserError, match="DISTILL.LEVELS: 'res4' .* They share p2, p3, p4, p5, p6"):
        _build(distill_cfg, "CWD", **{"DISTILL.LEVELS": ("res4",)})


def test_equal_channels_have_no_adapter_in_a_checkpoint(distill_cfg):
    keys = {"MODEL.FPN.OUT_CHANNELS": 24}
    assert adapter_modules(_build(distill_cfg, "CWD", "PKD", **keys)) == {}
    model = _build(distill_cfg, "CWD", "MGD", **keys)
    assert adapter_modules(model) == {"helpers": model.adapters}

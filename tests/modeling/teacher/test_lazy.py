"""A small ViTDet whose code is Detectron2's own."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import build_model

from eakd_det.modeling.teacher import make_teacher
from eakd_det.utils.errors import UserError
from tests.modeling.meta_arch.steps import first_and_last

VITDET = """
from functools import partial

import torch.nn as nn
from detectron2.config import LazyCall as L
from detectron2.model_zoo import get_config
from detectron2.modeling import SimpleFeaturePyramid, ViT
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

model = get_config("common/models/mask_rcnn_fpn.py").model
model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
        img_size=128, patch_size=16, embed_dim=32, depth=2, num_heads=2, drop_path_rate=0.1,
        window_size=4, window_block_indexes=[0], norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True, out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    out_channels=16,
    scale_factors=(4.0, 2.0, 1.0, 0.5),
    top_block=L(LastLevelMaxPool)(),
    norm="LN",
    square_pad=160,
)
model.proposal_generator.head.in_channels = 16
for name in ("mask_in_features", "mask_pooler", "mask_head"):
    model.roi_heads.pop(name)
model.roi_heads.box_head.update(
    input_shape=dict(_target_="detectron2.layers.ShapeSpec", channels=16, height=7, width=7),
    conv_dims=[8], fc_dims=[32], conv_norm="LN",
)
model.roi_heads.box_predictor.input_shape.channels = 32
model.roi_heads.num_classes = 5
model.roi_heads.box_predictor.test_score_thresh = 0.05
model.pixel_mean, model.pixel_std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
model.input_format = "RGB"
dataloader = dict(train=dict(dataset=dict(names="vitdet_train")))
"""


@pytest.fixture(scope="module")
def vitdet(tmp_path_factory):
    """Paths of a config and of weights under which its logits differ between ROIs."""
    folder = tmp_path_factory.mktemp("vitdet")
    path, weights = folder / "vitdet.py", folder / "vitdet.pth"
    path.write_text(VITDET)
    torch.manual_seed(0)
    model = instantiate(LazyConfig.load(str(path)).model)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.mul_(100)
        for name, p in model.named_parameters():
            if "rel_pos" in name:
                p.normal_(std=0.1)
    torch.save({"model": model.state_dict()}, weights)
    return str(path), str(weights)


def test_it_is_the_config_s_model(vitdet, batch):
    """Its own normalisation, and its square of padding; prepared, it gives the same."""
    teacher = make_teacher(*vitdet)
    assert (teacher.input_format, teacher.dataset) == ("RGB", "vitdet_train")
    model = instantiate(LazyConfig.load(vitdet[0]).model).eval()
    model.load_state_dict(torch.load(vitdet[1])["model"])
    boxes = [x["instances"].gt_boxes for x in batch]
    images = model.preprocess_image(batch)
    with torch.no_grad():
        expected = model.backbone(images.tensor)
    assert images.tensor.shape[-2:] == (160, 160)
    features = teacher.features([{"image": x["image"].flip(0)} for x in batch], "BGR")
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    assert all(torch.equal(features[name], x) for name, x in expected.items())
    before = teacher.roi_outputs(features, boxes)
    teacher.prepare()
    features = teacher.features(batch, "RGB")
    for a, b in zip(before, teacher.roi_outputs(features, boxes), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_it_teaches(distill_cfg, vitdet, batch, storage, caplog, steps):
    """The student pads to 128 x 128 pixels, the teacher to 160 x 160."""
    distill_cfg.TEACHER.CONFIG_FILE, distill_cfg.TEACHER.WEIGHTS = vitdet
    with pytest.raises(UserError, match="1333 pixels .* set INPUT.MAX_SIZE_TRAIN to 160"):
        build_model(distill_cfg)
    distill_cfg.INPUT.MAX_SIZE_TRAIN = 160
    distill_cfg.DISTILL.METHODS = ("DKD", "REVIEWKD")
    distill_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    with caplog.at_level("INFO"):
        first, last = first_and_last(distill_cfg, batch, steps)
    assert "The prepared teacher's logits differ by at most" in caplog.text
    assert last["loss_reviewkd"] < first["loss_reviewkd"]
    assert sum(last.values()) < sum(first.values())


def test_mistakes(vitdet, distill_cfg, tmp_path):
    _, weights = vitdet
    with pytest.raises(UserError, match="nowhere.py is neither a file nor a config"):
        make_teacher("nowhere.py", weights)
    empty = tmp_path / "empty.py"
    empty.write_text("train = dict(max_iter=1)\n")
    with pytest.raises(UserError, match=r"empty.py defines train, but no `model`"):
        make_teacher(str(empty), weights)
    empty.write_text("import no_such_project\n")
    with pytest.raises(UserError, match="No module named 'no_such_project'. The folder of its"):
        make_teacher(str(empty), weights)
    empty.write_text(f"{VITDET}\nmodel.input_format = None\n")
    with pytest.raises(UserError, match="GeneralizedRCNN with backbone.* and input_format None"):
        make_teacher(str(empty), weights)
    with pytest.raises(UserError, match="does not fit its model.*\n.*missing"):
        make_teacher("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py", weights)
    distill_cfg.TEACHER.CONFIG_FILE, distill_cfg.TEACHER.WEIGHTS = vitdet
    distill_cfg.INPUT.MAX_SIZE_TRAIN = 160
    distill_cfg.TEACHER.COMPILE = 160
    with pytest.raises(UserError, match="TEACHER.COMPILE pads images.* has a Linear"):
        build_model(distill_cfg)


def test_its_modules_can_be_named(distill_cfg, vitdet, batch, storage):
    """The blocks of a ViT return tokens with the channels last, which are no maps."""
    distill_cfg.TEACHER.CONFIG_FILE, distill_cfg.TEACHER.WEIGHTS = vitdet
    distill_cfg.INPUT.MAX_SIZE_TRAIN = 160
    distill_cfg.DISTILL.METHODS, distill_cfg.DISTILL.EA.ENABLED = ("CWD",), False
    distill_cfg.DISTILL.FEATURES = [["backbone.bottom_up.res4", "backbone.simfp_4"]]
    model = build_model(distill_cfg)
    assert model.maps.channels == [[256], [16]]
    assert model(batch)["loss_cwd"] > 0
    distill_cfg.DISTILL.FEATURES = [["backbone.bottom_up.res4", "backbone.net.blocks.1"]]
    with pytest.raises(UserError, match=r"blocks.1 returns .* \(2, 10, 10, 32\) .* is no map"):
        build_model(distill_cfg)

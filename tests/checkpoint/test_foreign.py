import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, load_strictly
from eakd_det.config.defaults import stock_config

from .common import build, equal, load


@pytest.mark.parametrize("container", ["state_dict", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "student.", "module.student."])
def test_a_file_of_another_training_code(model, state, tmp_path, container, prefix):
    prefixed = {prefix + name: value for name, value in state.items()}
    torch.save({container: prefixed, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    load(model, tmp_path / "a.pth")
    assert equal(model, state)


@pytest.mark.parametrize("protocol", [2, 5])
def test_model_zoo(model, state, tmp_path, protocol):
    arrays = {name: value.numpy() for name, value in state.items()}
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo", "scale": np.float32(3)}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, protocol))
    load(model, tmp_path / "model.pkl")
    assert equal(model, state)


def _caffe2_name(name):
    """Detectron 1's name of a weight of a ResNet-FPN detector, by its rules."""
    parts = {"weight": "w", "bias": "b", "norm.weight": "bn_s", "norm.bias": "bn_b"}
    heads = {
        "roi_heads.box_head.fc1": "fc6",
        "roi_heads.box_predictor.cls_score": "cls_score",
        "roi_heads.box_predictor.bbox_pred": "bbox_pred",
        "proposal_generator.rpn_head.conv": "conv_rpn_fpn2",
        "proposal_generator.rpn_head.objectness_logits": "rpn_cls_logits_fpn2",
        "proposal_generator.rpn_head.anchor_deltas": "rpn_bbox_pred_fpn2",
    }
    module, part = re.fullmatch(r"(.*?)\.((?:norm\.)?(?:weight|bias))", name).groups()
    if module in heads:
        return f"{heads[module]}_{parts[part]}"
    if module.endswith("stem.conv1"):
        return "conv1_w" if part == "weight" else f"res_conv1_{parts[part]}"
    fpn = re.fullmatch(r"backbone\.fpn_(lateral|output)(\d)", module)
    if fpn:
        last = {"2": 2, "3": 3, "4": 5, "5": 2}[fpn[2]]
        inner, lateral = ("inner_", "_lateral") if fpn[1] == "lateral" else ("", "")
        lateral = "" if fpn[2] == "5" else lateral
        return f"fpn_{inner}res{fpn[2]}_{last}_sum{lateral}_{parts[part]}"
    stage, block, conv = re.fullmatch(r".*\.(res\d)\.(\d+)\.(\w+)", module).groups()
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[conv]
    return f"{stage}_{block}_branch{branch}_{parts[part]}"


def _blobs(state):
    """The weights as Detectron 1 has them: background first, and a box for it."""
    blobs = {}
    for name, value in state.items():
        if "running" in name:
            continue
        array = value.numpy()
        if "cls_score" in name:
            array = np.concatenate([array[-1:], array[:-1]])
        if "bbox_pred" in name:
            array = np.concatenate([np.zeros_like(array[:4]), array])
        blobs[_caffe2_name(name)] = array
        blobs[_caffe2_name(name) + "_momentum"] = np.zeros_like(array)
    return blobs


def test_detectron_1(model, teacher_cfg, state, tmp_path):
    content = {"blobs": _blobs(state), "cfg": "MODEL: ..."}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content, protocol=2))
    stock = build(teacher_cfg, 0)
    DetectionCheckpointer(stock).load(str(tmp_path / "model_final.pkl"))
    load(model, tmp_path / "model_final.pkl")
    assert equal(model, stock.state_dict())
    for name, value in state.items():
        if "running" not in name:  # Detectron 1 has them folded into the scale
            assert torch.equal(model.state_dict()[name], value), name


def test_imagenet_blobs(model, teacher_cfg, state, tmp_path):
    backbone = {name: value for name, value in state.items() if ".bottom_up." in name}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(_blobs(backbone), protocol=2))
    stock = build(teacher_cfg, 0)
    DetectionCheckpointer(stock).load(str(tmp_path / "R-50.pkl"))
    SafeCheckpointer(model).load(str(tmp_path / "R-50.pkl"))
    assert equal(model, stock.state_dict())
    assert torch.equal(
        model.backbone.bottom_up.stem.conv1.weight, backbone["backbone.bottom_up.stem.conv1.weight"]
    )


def test_pycls(model, state, tmp_path):
    content = {"model_state": {**state, "x.num_batches_tracked": torch.tensor(1)}, "epoch": 3}
    torch.save(content, tmp_path / "model.pyth")
    load(model, tmp_path / "model.pyth")
    assert equal(model, state)


@pytest.fixture
def merged(distill_cfg, tmp_path):
    """A file with student, teacher and fusion modules under the released codes' keys."""
    torch.manual_seed(1)
    student = build_model(stock_config(distill_cfg)).state_dict()
    teacher = torch.load(distill_cfg.TEACHER.WEIGHTS, weights_only=True)["model"]
    state = {**student, **{f"teacher.{key}": value for key, value in teacher.items()}}
    state["kd_trans.abfs.0.conv1.0.weight"] = torch.zeros(4, 4, 1, 1)
    torch.save(state, tmp_path / "merged.pth")
    return str(tmp_path / "merged.pth"), student


def test_the_teacher_of_a_merged_file(distill_cfg, merged):
    expected = build_model(distill_cfg).teacher.model.state_dict()
    distill_cfg.TEACHER.WEIGHTS = merged[0]
    got = build_model(distill_cfg).teacher.model.state_dict()
    assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_the_student_of_a_merged_file(distill_cfg, merged, caplog):
    path, expected = merged
    stock = build_model(stock_config(distill_cfg))
    load_strictly(stock, path, key="MODEL.WEIGHTS")
    assert all(torch.equal(stock.state_dict()[key], expected[key]) for key in expected)
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    model = build_model(distill_cfg)
    SafeCheckpointer(model).load(path)
    assert torch.equal(model.backbone.fpn_output2.weight, expected["backbone.fpn_output2.weight"])
    assert "adapters" not in caplog.text, "new fusion modules are not reported"
    assert "kd_trans" not in caplog.text


def test_both_sides_have_a_prefix(distill_cfg, merged, tmp_path):
    """Layout of mdistiller's distillers; other modules are left out."""
    path, student = merged
    state = torch.load(path, weights_only=True)
    teacher = {k: v for k, v in state.items() if k.startswith("teacher.")}
    both = {**{f"student.{k}": v for k, v in student.items()}, **teacher}
    both["abfs.0.conv1.0.weight"] = torch.zeros(4)
    torch.save({"model": {f"module.{k}": v for k, v in both.items()}}, tmp_path / "both.pth")
    stock = build_model(stock_config(distill_cfg))
    load_strictly(stock, str(tmp_path / "both.pth"), key="MODEL.WEIGHTS")
    assert all(torch.equal(stock.state_dict()[key], student[key]) for key in student)
    distill_cfg.TEACHER.WEIGHTS = str(tmp_path / "both.pth")
    got = build_model(distill_cfg).teacher.model.state_dict()
    assert all(torch.equal(got[key], teacher[f"teacher.{key}"]) for key in got)


def test_prefixes_of_the_models_own_stay(tmp_path):
    model = nn.ModuleDict({"model": nn.Linear(2, 2), "student": nn.Linear(2, 2)})
    state = {name: torch.rand_like(value) for name, value in model.state_dict().items()}
    torch.save({"net": state}, tmp_path / "own.pth")
    load(model, tmp_path / "own.pth")
    assert equal(model, state)

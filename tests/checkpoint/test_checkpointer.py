import multiprocessing
import os
import pickle
import re
import resource
import signal
import time

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.engine import SimpleTrainer, hooks
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer, last_checkpoint, load_strictly
from eakd_det.config.defaults import stock_config
from eakd_det.modeling.meta_arch.distilled import adapter_modules
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import ABANDONED_SECONDS, write_atomically


class Foreign:
    """No plain container."""


def _build(cfg, seed):
    torch.manual_seed(seed)
    return build_model(cfg)


@pytest.fixture
def model(teacher_cfg):
    return _build(teacher_cfg, 0)


@pytest.fixture
def state(teacher_cfg):
    """The weights of another model of the same kind."""
    return _build(teacher_cfg, 1).state_dict()


def _load(model, path):
    load_strictly(model, str(path), key="TEACHER.WEIGHTS")


def _equal(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# Strict loading


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_that_fits(model, state, tmp_path, prefix):
    state = {prefix + name: value for name, value in state.items()}
    torch.save({"model": state}, tmp_path / "fits.pth")
    _load(model, tmp_path / "fits.pth")
    assert _equal(model, {name.removeprefix(prefix): value for name, value in state.items()})


@pytest.mark.parametrize("container", ["state_dict", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "student.", "module.student."])
def test_a_file_of_another_training_code(model, state, tmp_path, container, prefix):
    prefixed = {prefix + name: value for name, value in state.items()}
    torch.save({container: prefixed, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    _load(model, tmp_path / "a.pth")
    assert _equal(model, state)


@pytest.mark.parametrize("faults", [("missing",), ("unexpected",), ("shaped",), ()])
def test_each_fault_stops_the_load(model, state, tmp_path, faults):
    bias = "roi_heads.box_head.fc1.bias"
    lines = {
        "missing": f"  missing: 1 ({bias})",
        "unexpected": "  unexpected: 1 (mask_head.weight)",
        "shaped": "  wrongly shaped: 1 (roi_heads.box_predictor.cls_score.bias (81,) in the file, "
        "(6,) in the model)",
    }
    faults = faults or tuple(lines)  # none: all three at once
    if "missing" in faults:
        del state[bias]
    if "unexpected" in faults:
        state["mask_head.weight"] = torch.zeros(2)
    if "shaped" in faults:
        state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(81)
    path = tmp_path / "other.pth"
    torch.save({"model": state}, path)
    with pytest.raises(UserError) as error:
        _load(model, path)
    heading = f"TEACHER.WEIGHTS does not fit its model: {path}"
    assert str(error.value).splitlines() == [heading, *(lines[fault] for fault in faults)]


@pytest.mark.parametrize("name", ["backbone.fpn_lateral2.weight", "running_var"])
def test_weights_that_are_not_finite(model, state, tmp_path, name):
    name = next(key for key in state if key.endswith(name))
    state[name].view(-1)[1] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    message = rf"^TEACHER\.WEIGHTS: .*nan\.pth has NaN or infinite .* 1 of its tensors, {name} "
    with pytest.raises(UserError, match=message):
        _load(model, tmp_path / "nan.pth")


def test_many_faults_are_cut_short(model, state, tmp_path):
    names = [name for name in state if name.endswith(".weight") and "norm" not in name][:25]
    for name in names:
        del state[name]
    torch.save({"model": state}, tmp_path / "partial.pth")
    with pytest.raises(UserError, match=r"missing: 25 \(.* and 5 more\)") as error:
        _load(model, tmp_path / "partial.pth")
    assert sum(name in str(error.value) for name in names) == 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.pth", "not found"),
        ("missing.pkl", "not found"),
        ("folder.pth", "not found"),
        ("empty.pth", "is empty or cut off"),
        ("cut.pth", "is empty or cut off"),
        ("cut.pkl", "is empty or cut off"),
        ("object.pth", r"holds \S*\.Foreign: .* could run code"),
        ("object.pkl", r"holds \S*\.Foreign: .* could run code"),
        ("object.pyth", r"holds \S*\.Foreign: .* could run code"),
        ("number.pth", "Unsupported type found in checkpoint! epoch"),
    ],
)
def test_unreadable_files(model, tmp_path, name, reason):
    path = tmp_path / name
    stem, kind = name.split(".")
    content = {"number": {"epoch": 3}, "object": {"model": Foreign()}}.get(stem, {"a": [0] * 1000})
    if kind == "pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    whole = path.read_bytes()
    path.unlink()
    if stem == "folder":
        path.mkdir()
    elif stem != "missing":
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2]}.get(stem, whole))
    for load in (_load, lambda model, path: SafeCheckpointer(model).load(str(path))):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} .*{reason}") as error:
            load(model, path)
        assert str(error.value).startswith("TEACHER.WEIGHTS: ") == (load is _load)


def test_no_name(model):
    with pytest.raises(UserError, match="TEACHER.WEIGHTS is empty"):
        _load(model, "")


@pytest.mark.parametrize(
    "foreign", [{"net.weight": torch.zeros(3)}, {"backbone.fpn_lateral2.bias": torch.zeros(3)}]
)
@pytest.mark.parametrize("kind", ["pth", "pkl"])
def test_a_file_of_another_model_is_refused(model, tmp_path, foreign, kind):
    path = tmp_path / f"other.{kind}"
    if kind == "pth":
        torch.save({"model": foreign}, path)
    else:
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in foreign.items()}))
    with pytest.raises(UserError, match=rf"other\.{kind} holds no weight of this model"):
        SafeCheckpointer(model).load(str(path))


def test_a_file_of_a_part_is_loaded(model, state, tmp_path):
    name = "backbone.fpn_lateral2.weight"
    torch.save({"model": {name: state[name]}}, tmp_path / "part.pth")
    SafeCheckpointer(model).load(str(tmp_path / "part.pth"))
    assert torch.equal(model.state_dict()[name], state[name])


# Other people's formats


@pytest.mark.parametrize("protocol", [2, 5])
def test_model_zoo(model, state, tmp_path, protocol):
    arrays = {name: value.numpy() for name, value in state.items()}
    content = {"model": arrays, "__author__": "Detectron2 Model Zoo", "scale": np.float32(3)}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content, protocol))
    _load(model, tmp_path / "model.pkl")
    assert _equal(model, state)


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
    stock = _build(teacher_cfg, 0)
    DetectionCheckpointer(stock).load(str(tmp_path / "model_final.pkl"))
    _load(model, tmp_path / "model_final.pkl")
    assert _equal(model, stock.state_dict())
    for name, value in state.items():
        if "running" not in name:  # Detectron 1 has them folded into the scale
            assert torch.equal(model.state_dict()[name], value), name


def test_imagenet_blobs(model, teacher_cfg, state, tmp_path):
    backbone = {name: value for name, value in state.items() if ".bottom_up." in name}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(_blobs(backbone), protocol=2))
    stock = _build(teacher_cfg, 0)
    DetectionCheckpointer(stock).load(str(tmp_path / "R-50.pkl"))
    SafeCheckpointer(model).load(str(tmp_path / "R-50.pkl"))
    assert _equal(model, stock.state_dict())
    assert torch.equal(
        model.backbone.bottom_up.stem.conv1.weight, backbone["backbone.bottom_up.stem.conv1.weight"]
    )


def test_pycls(model, state, tmp_path):
    content = {"model_state": {**state, "x.num_batches_tracked": torch.tensor(1)}, "epoch": 3}
    torch.save(content, tmp_path / "model.pyth")
    _load(model, tmp_path / "model.pyth")
    assert _equal(model, state)


class Regression(nn.Linear):
    """A model as Detectron2's trainers want it: in training it gives losses."""

    def forward(self, x):
        return {"loss": super().forward(x).square().mean()}


def _trainer():
    model = Regression(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trainer = SimpleTrainer(model, [torch.ones(4, 3)] * 3, optimizer)
    trainer.register_hooks([hooks.LRScheduler(optimizer, build_lr_scheduler(get_cfg(), optimizer))])
    return model, trainer


def test_checkpoints_of_stock_training(tmp_path):
    model, trainer = _trainer()
    trainer.train(0, 3)
    stock = DetectionCheckpointer(model, str(tmp_path), trainer=trainer)
    stock.save("model_final", iteration=2)
    other, resumed = _trainer()
    checkpointer = SafeCheckpointer(other, str(tmp_path), trainer=resumed)
    rest = checkpointer.resume_or_load("", resume=True)
    assert rest["iteration"] == 2
    assert _equal(other, model.state_dict())
    assert resumed.iter == trainer.iter == 3
    assert str(resumed.state_dict()) == str(trainer.state_dict())
    assert "momentum_buffer" in str(resumed.state_dict())


# Writing


def test_save_and_load(model, state, tmp_path):
    model.load_state_dict(state)
    SafeCheckpointer(model, str(tmp_path)).save("model_0000001")
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "model_0000001.pth")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    SafeCheckpointer(model).load(last_checkpoint(str(tmp_path)))
    assert _equal(model, state)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no checkpoint"):
        last_checkpoint(str(tmp_path))


@pytest.mark.parametrize(("mode", "old", "new"), [("w", "old", "new"), ("wb", b"old", b"new")])
def test_failed_write_keeps_the_old_file(tmp_path, mode, old, new):
    path = tmp_path / "file"
    for content, fails in [(old, False), (new, True)]:
        try:
            with write_atomically(str(path), mode) as f:
                f.write(content)
                f.flush()
                assert not fails or path.read_bytes() == b"old"
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_readers_of_the_old_file_are_left_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with open(path) as reader:
        with write_atomically(str(path)) as f:
            f.write("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_full_disk_keeps_the_old_checkpoint(tmp_path):
    model = nn.Linear(300, 300)
    checkpointer = SafeCheckpointer(model, str(tmp_path))
    checkpointer.save("model_best")
    old = (tmp_path / "model_best.pth").read_bytes()
    nn.init.zeros_(model.weight)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, hard))
    try:
        with pytest.raises((OSError, RuntimeError)):
            checkpointer.save("model_best")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "model_best.pth").read_bytes() == old
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_best.pth"]


def test_failed_tag_keeps_the_old_one(tmp_path):
    checkpointer = SafeCheckpointer(nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_0")
    with pytest.raises(TypeError):
        checkpointer.tag_last_checkpoint(1)  # what is written must be text
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "model_0.pth")


def _save_and_hang(model, folder, number):
    """Save a checkpoint; the `number`-th file that reaches the disk takes for ever."""
    fsync, count = os.fsync, iter(range(1, number + 1))

    def slow_fsync(descriptor):
        if next(count) == number:
            time.sleep(600)
        fsync(descriptor)

    os.fsync = slow_fsync
    SafeCheckpointer(model, folder).save("next")


@pytest.mark.parametrize(("number", "file"), [(1, "next.pth"), (2, "last_checkpoint")])
def test_killed_while_saving(tmp_path, number, file):
    model, restored = nn.Linear(300, 300), nn.Linear(300, 300)
    SafeCheckpointer(model, str(tmp_path)).save("good")
    process = multiprocessing.get_context("fork").Process(
        target=_save_and_hang, args=(nn.Linear(300, 300), str(tmp_path), number)
    )
    process.start()
    while not (left := list(tmp_path.glob(f"{file}.*.incomplete"))) and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    [aside] = left
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "good.pth")
    _load(restored, last_checkpoint(str(tmp_path)))
    assert _equal(restored, model.state_dict())
    SafeCheckpointer(model, str(tmp_path)).save("next")
    assert aside.exists(), "its writer might still be there"
    os.utime(aside, (0, time.time() - ABANDONED_SECONDS - 1))
    SafeCheckpointer(model, str(tmp_path)).save("next")
    assert sorted(os.listdir(tmp_path)) == ["good.pth", "last_checkpoint", "next.pth"]


def test_two_writers_of_one_path(tmp_path):
    """Neither sees what the other writes; files of others are left alone."""
    path, other = tmp_path / "result.json", tmp_path / "download.incomplete"
    other.touch()
    os.utime(other, (0, 0))
    with write_atomically(str(path)) as first:
        first.write("the first, which is longer")
        with write_atomically(str(path)) as second:
            second.write("the second")
        assert path.read_text() == "the second"
    assert path.read_text() == "the first, which is longer"
    assert sorted(os.listdir(tmp_path)) == ["download.incomplete", "result.json"]


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


def test_both_sides_have_a_prefix(distill_cfg, merged, tmp_path):
    """As mdistiller saves its distillers; what else trains beside them is left out."""
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
    _load(model, tmp_path / "own.pth")
    assert _equal(model, state)


@pytest.mark.parametrize("prefix", ["adapters.", "helpers."])
def test_adapters_are_no_part_of_a_student(distill_cfg, tmp_path, caplog, prefix):
    """Also in a file saved with them: the state of a run that met a NaN, of any version."""
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    model = build_model(distill_cfg)
    state = {k.replace("adapters.", prefix): v for k, v in model.state_dict().items()}
    assert any(key.startswith(prefix) for key in state)
    path = str(tmp_path / "whole.pth")
    torch.save({"model": state}, path)
    load_strictly(build_model(stock_config(distill_cfg)), path, key="MODEL.WEIGHTS")
    SafeCheckpointer(model).load(path)
    assert "REVIEWKD" not in caplog.text


def test_adapters_in_a_checkpoint_of_an_older_version(distill_cfg, tmp_path):
    """The name there stays "helpers"."""
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    model, saved = build_model(distill_cfg), build_model(distill_cfg)
    states = saved.state_dict()
    adapters = {k: v for k, v in states.items() if k.startswith("adapters.")}
    expected = {key.removeprefix("adapters."): value for key, value in adapters.items()}
    student = {key: value for key, value in states.items() if key not in adapters}
    torch.save({"model": student, "helpers": expected}, tmp_path / "model_0000009.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    SafeCheckpointer(model, str(tmp_path), **adapter_modules(model)).resume_or_load("")
    assert _equal(model.adapters, expected) and _equal(model, states)


def test_the_student_of_a_merged_file(distill_cfg, merged, caplog):
    path, expected = merged
    stock = build_model(stock_config(distill_cfg))
    load_strictly(stock, path, key="MODEL.WEIGHTS")
    assert all(torch.equal(stock.state_dict()[key], expected[key]) for key in expected)
    distill_cfg.DISTILL.METHODS = ("REVIEWKD",)
    model = build_model(distill_cfg)
    SafeCheckpointer(model).load(path)
    assert torch.equal(model.backbone.fpn_output2.weight, expected["backbone.fpn_output2.weight"])
    assert "adapters" not in caplog.text, "fusion modules that start anew are no fault"
    assert "kd_trans" not in caplog.text

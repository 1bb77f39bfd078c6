import multiprocessing
import os
import pickle
import re
import resource
import signal
import time

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
from eakd_det.utils.files import ABANDONED_SECONDS

from .common import equal, load


class Foreign:
    """Object that is not a plain container."""


# Strict loading


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_that_fits(model, state, tmp_path, prefix):
    state = {prefix + name: value for name, value in state.items()}
    torch.save({"model": state}, tmp_path / "fits.pth")
    load(model, tmp_path / "fits.pth")
    assert equal(model, {name.removeprefix(prefix): value for name, value in state.items()})


@pytest.mark.parametrize("problems", [("missing",), ("unexpected",), ("shaped",), ()])
def test_each_problem_stops_the_load(model, state, tmp_path, problems):
    bias = "roi_heads.box_head.fc1.bias"
    lines = {
        "missing": f"  missing: 1 ({bias})",
        "unexpected": "  unexpected: 1 (mask_head.weight)",
        "shaped": "  wrongly shaped: 1 (roi_heads.box_predictor.cls_score.bias (81,) in the file, "
        "(6,) in the model)",
    }
    problems = problems or tuple(lines)  # none: all three at once
    if "missing" in problems:
        del state[bias]
    if "unexpected" in problems:
        state["mask_head.weight"] = torch.zeros(2)
    if "shaped" in problems:
        state["roi_heads.box_predictor.cls_score.bias"] = torch.zeros(81)
    path = tmp_path / "other.pth"
    torch.save({"model": state}, path)
    with pytest.raises(UserError) as error:
        load(model, path)
    heading = f"TEACHER.WEIGHTS does not fit its model: {path}"
    assert str(error.value).splitlines() == [heading, *(lines[problem] for problem in problems)]


@pytest.mark.parametrize("name", ["backbone.fpn_lateral2.weight", "running_var"])
def test_weights_that_are_not_finite(model, state, tmp_path, name):
    name = next(key for key in state if key.endswith(name))
    state[name].view(-1)[1] = float("nan")
    torch.save({"model": state}, tmp_path / "nan.pth")
    message = rf"^TEACHER\.WEIGHTS: .*nan\.pth has NaN or infinite .* 1 of its tensors, {name} "
    with pytest.raises(UserError, match=message):
        load(model, tmp_path / "nan.pth")


def test_long_lists_are_shortened(model, state, tmp_path):
    names = [name for name in state if name.endswith(".weight") and "norm" not in name][:25]
    for name in names:
        del state[name]
    torch.save({"model": state}, tmp_path / "partial.pth")
    with pytest.raises(UserError, match=r"missing: 25 \(.* and 5 more\)") as error:
        load(model, tmp_path / "partial.pth")
    assert sum(name in str(error.value) for name in names) == 20


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.pth", "not found"),
        ("missing.pkl", "not found"),
        ("folder.pth", "not found"),
        ("empty.pth", "is empty or truncated"),
        ("cut.pth", "is empty or truncated"),
        ("cut.pkl", "is empty or truncated"),
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
    for function in (load, lambda model, path: SafeCheckpointer(model).load(str(path))):
        with pytest.raises(UserError, match=f"{re.escape(str(path))} .*{reason}") as error:
            function(model, path)
        assert str(error.value).startswith("TEACHER.WEIGHTS: ") == (function is load)


def test_no_name(model):
    with pytest.raises(UserError, match="TEACHER.WEIGHTS is empty"):
        load(model, "")


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


class Regression(nn.Linear):
    """A model for Detectron2's trainers, which returns losses in training."""

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
    assert equal(other, model.state_dict())
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
    assert equal(model, state)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} holds no checkpoint"):
        last_checkpoint(str(tmp_path))


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
    load(restored, last_checkpoint(str(tmp_path)))
    assert equal(restored, model.state_dict())
    SafeCheckpointer(model, str(tmp_path)).save("next")
    assert aside.exists(), "its writer might still be there"
    os.utime(aside, (0, time.time() - ABANDONED_SECONDS - 1))
    SafeCheckpointer(model, str(tmp_path)).save("next")
    assert sorted(os.listdir(tmp_path)) == ["good.pth", "last_checkpoint", "next.pth"]


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
    assert equal(model.adapters, expected) and equal(model, states)

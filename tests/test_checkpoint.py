import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager

from eakd_det.checkpoint import SafeCheckpointer, last_checkpoint, load_strictly, write_atomically
from eakd_det.errors import UserError


class Attack:
    """Unpickled, it would make the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def model(stock_cfg):
    return build_model(stock_cfg)


@pytest.fixture
def state(stock_cfg):
    """The weights of another model of the same kind."""
    torch.manual_seed(1)
    return build_model(stock_cfg).state_dict()


def _equal(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_pickles_of_arrays(model, state, tmp_path, protocol):
    arrays = {name: value.numpy() for name, value in state.items()}
    content = {"model": arrays, "__author__": "zoo", "step": np.float32(3)}
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    load_strictly(model, str(path), key="TEACHER.WEIGHTS")
    assert _equal(model, state)


def test_caffe2_names_match_as_in_stock(stock_cfg, tmp_path):
    generator = np.random.default_rng(0)
    blobs = {
        "conv1_w": generator.normal(size=(64, 3, 7, 7)).astype(np.float32),
        "res_conv1_bn_s": generator.normal(size=64).astype(np.float32),
        "conv1_w_momentum": np.zeros((64, 3, 7, 7), np.float32),
    }
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps(blobs, protocol=2))
    ours, stock = build_model(stock_cfg), build_model(stock_cfg)
    stock.load_state_dict(ours.state_dict())
    SafeCheckpointer(ours).load(str(path))
    DetectionCheckpointer(stock).load(str(path))
    assert _equal(ours, stock.state_dict())
    stem = ours.backbone.bottom_up.stem.conv1
    assert np.array_equal(stem.weight.detach().numpy(), blobs["conv1_w"])


@pytest.mark.parametrize("name", ["attack.pkl", "attack.pth"])
def test_runs_no_code(model, tmp_path, name):
    mark, path = tmp_path / "mark", tmp_path / name
    content = {"model": {"a": np.array([Attack(mark)], dtype=object), "b": Attack(mark)}}
    if name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=f"{name} holds .* could run code"):
        load_strictly(model, str(path), key="TEACHER.WEIGHTS")
    assert not mark.exists()
    with open(path, "rb") as f:  # the attack is real: torch or pickle would have run it
        if name.endswith(".pkl"):
            pickle.load(f)
        else:
            torch.load(f, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("name", ["cut.pth", "cut.pkl", "empty.pth", "missing.pth", ""])
def test_broken_files(model, state, tmp_path, name):
    whole = tmp_path / "whole"
    torch.save({"model": state}, whole) if name == "cut.pth" else whole.write_bytes(
        pickle.dumps({"model": {"a": np.arange(1000)}})
    )
    path = tmp_path / name
    if name.startswith("cut"):
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    if name.startswith("empty"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="TEACHER.WEIGHTS"):
        load_strictly(model, str(path) if name else "", key="TEACHER.WEIGHTS")


def test_many_faults_are_cut_short(model, tmp_path, state):
    for name in [name for name in state if name.endswith(".weight") and "norm" not in name][:25]:
        del state[name]
    torch.save({"model": state}, tmp_path / "partial.pth")
    with pytest.raises(UserError, match=r"missing: 25 \(.* and 5 more\)"):
        load_strictly(model, str(tmp_path / "partial.pth"), key="TEACHER.WEIGHTS")


def test_a_file_of_another_model_is_refused(model, tmp_path):
    torch.save({"model": {"net.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no weight of this model"):
        SafeCheckpointer(model).load(str(tmp_path / "other.pth"))


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(str(path)) as f:
        f.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_save_and_load(model, state, tmp_path):
    model.load_state_dict(state)
    SafeCheckpointer(model, str(tmp_path)).save("model_0000001")
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000001.pth"]
    assert last_checkpoint(str(tmp_path)) == str(tmp_path / "model_0000001.pth")
    torch.save({"model": {}}, tmp_path / "empty.pth")
    DetectionCheckpointer(model).load(last_checkpoint(str(tmp_path)))
    assert _equal(model, state)


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoint"):
        last_checkpoint(str(tmp_path))


WRITER = """
import sys, torch
from torch import nn
from eakd_det.checkpoint import SafeCheckpointer
checkpointer = SafeCheckpointer(nn.Linear(3000, 3000), sys.argv[1])
checkpointer.save("good")
print("saved", flush=True)
while True:
    checkpointer.save("next")
"""


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.02 * i for i in range(20)])
def test_killed_while_saving(tmp_path, delay):
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    model = torch.nn.Linear(3000, 3000)
    load_strictly(model, last_checkpoint(str(tmp_path)), key="checkpoint")


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_weights(stock_cfg, tmp_path, depth):
    torch.manual_seed(depth)
    theirs = torchvision.models.get_model(f"resnet{depth}").eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    stock_cfg.MODEL.RESNETS.DEPTH = depth
    stock_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    stock_cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    model = build_model(stock_cfg).eval()
    SafeCheckpointer(model).load(str(tmp_path / "weights.pth"))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours = model.backbone.bottom_up(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i in (1, 2, 3, 4):
            y = getattr(theirs, f"layer{i}")(y)
            # Normalisation is folded differently: float32 rounding over up to 50 layers.
            torch.testing.assert_close(ours[f"res{i + 1}"], y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["INPUT.FORMAT", "BGR"], "set INPUT.FORMAT RGB"),
        (["MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]], "MODEL.PIXEL_MEAN"),
        (["MODEL.PIXEL_STD", [1.0, 1.0, 1.0]], "MODEL.PIXEL_STD"),
        (
            ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256],
            "set MODEL.RESNETS.STRIDE_IN_1X1 False",
        ),
    ],
)
def test_torchvision_weights_want_their_statistics(stock_cfg, tmp_path, options, message):
    stock_cfg.merge_from_list(options)
    depth = stock_cfg.MODEL.RESNETS.DEPTH
    torch.save(torchvision.models.get_model(f"resnet{depth}").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        SafeCheckpointer(build_model(stock_cfg)).load(str(tmp_path / "w.pth"))


def test_torchvision_name_is_its_download(monkeypatch):
    asked = []
    local_path = PathManager.get_local_path

    def get_local_path(path, **kwargs):
        if path.startswith("https://"):
            asked.append(path)
            return "/cache/resnet18.pth"
        return local_path(path, **kwargs)

    monkeypatch.setattr(PathManager, "get_local_path", get_local_path)
    assert PathManager.get_local_path("torchvision://resnet18") == "/cache/resnet18.pth"
    assert asked[0].endswith("resnet18-f37072fd.pth")
    with pytest.raises(UserError, match="choose from .*resnet18"):
        PathManager.get_local_path("torchvision://resnet19")

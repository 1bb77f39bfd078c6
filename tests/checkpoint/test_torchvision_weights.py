import shutil

import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.utils.errors import UserError


@pytest.fixture(scope="module", params=[18, 50])
def theirs(request):
    """torchvision's ResNet with random weights and running statistics."""
    torch.manual_seed(request.param)
    model = torchvision.models.get_model(f"resnet{request.param}").eval()
    for norm in [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]:
        for tensor, low, high in [
            (norm.weight.data, 0.5, 1),
            (norm.bias.data, -0.2, 0.2),
            (norm.running_mean, -0.2, 0.2),
            (norm.running_var, 0.5, 1.5),
        ]:
            tensor.uniform_(low, high)
    return request.param, model


def _residual_features(model, x):
    """Outputs of torchvision's layer1..4."""
    y = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        y = layer(y)
        yield y


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_features_equal_torchvision(stock_cfg, theirs, tmp_path, norm):
    depth, theirs = theirs
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    stock_cfg.MODEL.RESNETS.DEPTH = depth
    stock_cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 256
    stock_cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    stock_cfg.MODEL.RESNETS.NORM = norm
    model = build_model(stock_cfg).eval()
    SafeCheckpointer(model).load(str(tmp_path / "weights.pth"))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model.backbone.bottom_up(x)
        for i, expected in enumerate(_residual_features(theirs, x), start=2):
            assert 0.1 < expected.std() < 10
            # Normalisation is folded differently: float32 rounding over up to 50 layers.
            torch.testing.assert_close(ours[f"res{i}"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["INPUT.FORMAT", "BGR"], "set INPUT.FORMAT RGB"),
        (["MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]], "MODEL.PIXEL_MEAN .123.675"),
        (["MODEL.PIXEL_STD", [1.0, 1.0, 1.0]], "MODEL.PIXEL_STD .58.395"),
        (
            ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256],
            "set MODEL.RESNETS.STRIDE_IN_1X1 False",
        ),
    ],
)
def test_other_inputs_and_strides_are_refused(stock_cfg, tmp_path, options, message):
    stock_cfg.merge_from_list(options)
    depth = stock_cfg.MODEL.RESNETS.DEPTH
    torch.save(torchvision.models.get_model(f"resnet{depth}").state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        SafeCheckpointer(build_model(stock_cfg)).load(str(tmp_path / "w.pth"))


def test_a_model_with_such_names_keeps_them(tmp_path):
    """The checkpoint of a torchvision classifier in training is no file of ImageNet weights."""
    model = torchvision.models.resnet18()
    SafeCheckpointer(model, str(tmp_path)).save("model")
    other = torchvision.models.resnet18()
    SafeCheckpointer(other).load(str(tmp_path / "model.pth"))
    assert torch.equal(other.fc.weight, model.fc.weight)
    assert torch.equal(other.layer1[0].conv1.weight, model.layer1[0].conv1.weight)


def test_name_is_its_download(stock_cfg, theirs, tmp_path, monkeypatch):
    """torchvision://NAME is the file that Detectron2's cache has of torchvision's URL."""
    depth, theirs = theirs
    name = {18: "resnet18-f37072fd.pth", 50: "resnet50-0676ba61.pth"}[depth]
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    shutil.move(tmp_path / "weights.pth", tmp_path / "models" / name)
    path = PathManager.get_local_path(f"torchvision://resnet{depth}")
    assert path == str(tmp_path / "models" / name)
    with PathManager.open(f"torchvision://resnet{depth}", "rb") as f:
        assert f.name == path
    if depth == 18:
        model = build_model(stock_cfg)
        SafeCheckpointer(model).load("torchvision://resnet18")
        assert torch.equal(model.backbone.bottom_up.stem.conv1.weight, theirs.conv1.weight)


@pytest.mark.parametrize("name", ["resnet19", "vgg16", "fasterrcnn_resnet50_fpn", ""])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match=f"torchvision://{name}: choose from .*resnet18"):
        PathManager.get_local_path(f"torchvision://{name}")

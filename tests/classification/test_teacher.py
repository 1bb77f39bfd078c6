import pytest
import torch

from classification.models import build_classifier
from classification.sources import source_of
from classification.teacher import build_model
from eakd_det.utils.errors import UserError


def _random_state(name):
    state = build_classifier(name, 10).state_dict()
    return {key: torch.rand_like(value.float()).to(value.dtype) for key, value in state.items()}


@pytest.mark.parametrize("key", ["MODEL", "TEACHER"])
@pytest.mark.parametrize("container", ["model", "state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "student.", "model."])
def test_checkpoints_of_other_training_codes(tmp_path, key, container, prefix):
    """Student and teacher of another run alike, as detectors' checkpoints."""
    state = _random_state("resnet8")
    content = {container: {prefix + name: value for name, value in state.items()}, "epoch": 3}
    torch.save(content, tmp_path / "a.pth")
    got = build_model("resnet8", str(tmp_path / "a.pth"), source_of("digits"), key=key)
    assert all(torch.equal(value, state[name]) for name, value in got.state_dict().items())


def test_a_file_of_both_networks(tmp_path):
    states = {"MODEL": _random_state("resnet8"), "TEACHER": _random_state("resnet14")}
    merged = {f"module.student.{name}": value for name, value in states["MODEL"].items()}
    merged |= {f"module.teacher.{name}": value for name, value in states["TEACHER"].items()}
    torch.save({"model": {**merged, "module.abfs.0.weight": torch.zeros(2)}}, tmp_path / "a.pth")
    for key, name in (("MODEL", "resnet8"), ("TEACHER", "resnet14")):
        got = build_model(name, str(tmp_path / "a.pth"), source_of("digits"), key=key)
        assert all(torch.equal(v, states[key][name]) for name, v in got.state_dict().items())


def test_weights_of_another_model_are_named(tmp_path):
    torch.save({"state_dict": _random_state("resnet8")}, tmp_path / "a.pth")
    with pytest.raises(UserError) as error:
        build_model("vgg8", str(tmp_path / "a.pth"), source_of("cifar10"), key="TEACHER")
    heading, missing, unexpected = str(error.value).splitlines()
    assert heading == f"TEACHER.WEIGHTS does not fit its model: {tmp_path / 'a.pth'}"
    assert "missing: 32 (block0.0.weight" in missing
    assert "unexpected: " in unexpected and "layer1.0.conv1.weight" in unexpected

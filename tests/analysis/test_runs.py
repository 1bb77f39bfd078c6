"""eakd_det.analysis.runs."""

import pytest
import torch

from eakd_det.analysis.runs import find_runs
from eakd_det.utils.errors import UserError


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Two finished runs with checkpoints, as seen from the working folder."""
    for method in ("KD", "EA-KD"):
        folder = tmp_path / "out" / method / "pair"
        folder.mkdir(parents=True)
        for name in ("model_final.pth", "model_best.pth", "model_0000009.pth", "model_0000019.pth"):
            torch.save({"model": {}, "iteration": 19}, folder / name)
        (folder / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)


def labels(*texts):
    return [run.label for run in find_runs(list(texts))]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["out/KD/pair"], ["pair"]),
        (["out/KD/pair", "out/EA-KD/pair/"], ["KD", "EA-KD"]),
        (["out/KD/pair/model_final.pth", "mine=out/EA-KD/pair"], ["KD", "mine"]),
        (["out/KD/pair/model_best.pth"], ["pair, best"]),
        (["early=out/KD/pair/model_0000009.pth"], ["early"]),
        (
            ["out/KD/pair/model_0000009.pth", "out/KD/pair"],
            ["pair, iteration 10", "pair, final"],
        ),
        (
            ["A=out/KD/pair/model_0000009.pth", "A=out/KD/pair/model_0000019.pth"],
            ["A, iteration 10", "A, iteration 20"],
        ),
        (
            ["out/KD/pair/model_0000009.pth", "out/KD/pair", "out/EA-KD/pair"],
            ["KD, iteration 10", "KD, final", "EA-KD"],
        ),
    ],
)
def test_labels_say_what_tells_runs_apart(out, texts, expected):
    assert labels(*texts) == expected


def test_what_a_run_holds(out, tmp_path):
    folder, checkpoint = find_runs(["out/KD/pair", "X=out/EA-KD/pair/model_0000009.pth"])
    assert folder.weights == "out/KD/pair/model_final.pth"
    assert folder.config_file("other.yaml") == "out/KD/pair/config.yaml"
    assert folder.iteration() == 20
    assert checkpoint.weights == "out/EA-KD/pair/model_0000009.pth"
    assert (checkpoint.label, checkpoint.name) == ("X", "X")


def test_a_path_with_an_equals_sign_is_a_path(out, tmp_path):
    (tmp_path / "lr=0.1").mkdir()
    assert labels("lr=0.1", "out/KD/pair") == ["lr=0.1", "out/KD/pair"]
    assert labels("KD T=2, seed 1=lr=0.1", "A=out/KD/pair") == ["KD T=2, seed 1", "A"]


def test_mistakes_are_told(out, tmp_path):
    with pytest.raises(UserError, match="no run folder or checkpoint 'nowhere'"):
        find_runs(["A=nowhere"])
    with pytest.raises(UserError, match="Two runs are called 'pair, final'"):
        find_runs(["out/KD/pair", "out/KD/pair"])
    (tmp_path / "bare").mkdir()
    (bare,) = find_runs(["bare"])
    with pytest.raises(UserError, match=r"bare holds no model_final.pth: .*bare/model_\*.pth"):
        _ = bare.weights
    with pytest.raises(UserError, match="no config.yaml: name .* --config-file"):
        bare.config_file()
    assert bare.config_file("other.yaml") == "other.yaml"
    torch.save({"model": {}}, tmp_path / "bare" / "model_final.pth")
    with pytest.raises(UserError, match="has no iteration number"):
        bare.iteration()

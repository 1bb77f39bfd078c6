import argparse
import runpy
import sys
from pathlib import Path

import pytest

from classification.config import classification_config
from eakd_det.config.defaults import detection_config
from eakd_det.utils.command_line import split_options
from llm.config import language_config

ROOT = Path(__file__).parents[2]
DEFAULTS = detection_config(), classification_config()
WORDS = ["--configs", "configs/KD/a_b.yaml", "EA-KD.yaml", "KD.yaml", "--seeds", "1", "2"]


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    for name in ("--configs", "--seeds"):
        parser.add_argument(name, nargs="+")
    parser.add_argument("--wandb")
    parser.add_argument("--resume", action="store_true")
    return parser


@pytest.mark.parametrize(
    "key",
    [
        *("SOLVER.EPOCHS", "DISTILL.EA.ENABLED", "MODEL.ARCHITECTURE.n_layer", "SOLVR.TYPO"),
        *("OUTPUT_DIR", "SEED", "VERSION", "CUDNN_BENCHMARK", "VIS_PERIOD"),
    ],
)
def test_pairs_stand_anywhere(parser, key):
    for pair in ([key, "3"], [key, "-3"], [key, "SEED"]):
        for flags in ([*WORDS, "--resume"], ["--resume", *WORDS]):
            assert split_options(parser, [*flags, *pair], *DEFAULTS) == (flags, pair)
            assert split_options(parser, [*pair, *flags], *DEFAULTS) == (flags, pair)
        between = [*WORDS, *pair, "--resume", *pair]
        assert split_options(parser, between, *DEFAULTS) == ([*WORDS, "--resume"], pair * 2)
    assert split_options(parser, WORDS, *DEFAULTS) == (WORDS, [])


def test_a_value_of_a_flag_is_no_key(parser):
    words = ["--wandb", "SEED", "--resume"]
    assert split_options(parser, [*words, "SEED", "3"], *DEFAULTS) == (words, ["SEED", "3"])
    assert split_options(parser, ["--wandb"], *DEFAULTS) == (["--wandb"], [])


def test_a_flag_is_no_value(parser):
    words = ["SOLVER.BASE_LR", "--resume"]
    assert split_options(parser, words, *DEFAULTS) == (["--resume"], ["SOLVER.BASE_LR"])


def test_overrides_of_a_python_config(parser):
    options = ["train.max_iter=9000", "optimizer.lr=-1"]
    words = [options[0], "--resume", options[1]]
    assert split_options(parser, words, *DEFAULTS) == (["--resume"], options)


def test_a_key_without_a_node_is_one_of_the_tool_s(parser):
    words = [*WORDS, "VIS_PERIOD", "3"]
    assert split_options(parser, words, language_config()) == (words, [])


@pytest.mark.parametrize(
    ("tool", "flags", "key"),
    [
        ("sweep.py", "--configs a.yaml --seeds 1 2", "VIS_PERIOD"),
        ("sweep.py", "--configs a.yaml --seeds 1 2", "CUDNN_BENCHMARK"),
        ("sweep_lm.py", "--configs a.yaml --seeds 1 2", "VERSION"),
        ("evaluate_lm.py", "--config-file a.yaml b.yaml", "VERSION"),
        ("train_net.py", "--config-file a.yaml --resume", "VIS_PERIOD"),
        ("train_classifier.py", "--config-file a.yaml --resume", "SEED"),
        ("train_lm.py", "--config-file a.yaml --resume", "SOLVER.BASE_LR"),
        ("visualize.py", "--config-file a.yaml --num-images 3", "VIS_PERIOD"),
    ],
)
def test_every_tool(monkeypatch, tool, flags, key):
    parse = runpy.run_path(str(ROOT / "tools" / tool))["parse_arguments"]
    found = []
    for words in ([*flags.split(), key, "1000"], [key, "1000", *flags.split()]):
        monkeypatch.setattr(sys, "argv", [tool, *words])
        found.append(vars(parse()))
    assert found[0] == found[1]
    assert found[0]["opts"] == [key, "1000"]
    for name, value in {"seeds": [1, 2], "resume": True, "num_images": 3}.items():
        assert found[0].get(name, value) == value


def test_a_misspelt_flag_behind_pairs_is_told(monkeypatch, capsys):
    parse = runpy.run_path(str(ROOT / "tools" / "train_net.py"))["parse_arguments"]
    monkeypatch.setattr(sys, "argv", ["train_net.py", "SOLVER.BASE_LR", "0.01", "--rezume"])
    with pytest.raises(SystemExit):
        parse()
    assert "unrecognized arguments: --rezume" in capsys.readouterr().err

import argparse
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from eakd_det.utils.command_line import make_parser, split_options

ROOT = Path(__file__).parents[2]
WORDS = ["--configs", "configs/KD/a_b.yaml", "EA-KD.yaml", "KD.yaml", "--seeds", "1", "2"]


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    for name in ("--configs", "--seeds"):
        parser.add_argument(name, nargs="+")
    parser.add_argument("--wandb")
    parser.add_argument("--two", nargs=2)
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
            assert split_options(parser, [*flags, *pair]) == (flags, pair)
            assert split_options(parser, [*pair, *flags]) == (flags, pair)
        between = [*WORDS, *pair, "--resume", *pair]
        assert split_options(parser, between) == ([*WORDS, "--resume"], pair * 2)
    assert split_options(parser, WORDS) == (WORDS, [])


def test_a_value_of_a_flag_is_no_key(parser):
    words = ["--wandb", "SEED", "--resume"]
    assert split_options(parser, [*words, "SEED", "3"]) == (words, ["SEED", "3"])
    assert split_options(parser, ["--wandb"]) == (["--wandb"], [])
    words = ["--two", "a.csv", "KD"]
    assert split_options(parser, [*words, "SEED", "3"]) == (words, ["SEED", "3"])
    assert split_options(parser, words[:2]) == (words[:2], [])


def test_a_flag_is_no_value(parser):
    words = ["SOLVER.BASE_LR", "--resume"]
    assert split_options(parser, words) == (["--resume"], ["SOLVER.BASE_LR"])


def test_overrides_of_a_python_config(parser):
    options = ["train.max_iter=9000", "optimizer.lr=-1"]
    words = [options[0], "--resume", options[1]]
    assert split_options(parser, words) == (["--resume"], options)


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


@pytest.mark.parametrize(
    "tool",
    sorted(path.stem for path in (ROOT / "tools").glob("*.py") if path.stem != "setup_environment"),
)
@pytest.mark.parametrize("flag, code", [("--help", 0), ("--rezume", 2)])
def test_help_and_mistakes_import_nothing_heavy(tool, flag, code):
    """The imports of torch and Detectron2 alone take seconds."""
    command = (
        "import runpy, sys\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    assert not {'torch', 'detectron2', 'numpy'} & sys.modules.keys()\n"
    )
    script = str(ROOT / "tools" / f"{tool}.py")
    command = f"import sys; sys.argv = {[script, flag]!r}\n{command}"
    process = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT
    )
    assert process.returncode == code, process.stderr
    assert "usage: " in process.stdout + process.stderr


def test_the_flags_of_a_training_are_detectron2_s():
    own = make_parser("", opts="pairs", has_processes=True).parse_args([])
    stock = default_argument_parser().parse_args([])
    assert vars(own) == {**vars(stock), "opts": [], "overwrite": False, "wandb": None}

#!/usr/bin/env python
"""Sweep over language models: tools/sweep.py with seed 1, into output/sweep/LLM, by default.

tools/sweep_lm.py --configs configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3
tools/sweep_lm.py --configs ... --seeds 1 2 3 TRAINING.MAX_STEPS 200
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.sweep import arguments


def parse_arguments():
    return arguments.parse(__doc__, seeds=[1], output_dir="output/sweep/LLM", data=False)


def main(args):
    from eakd_det.sweep import command
    from llm.runs import LanguageModels

    command.run(args, (LanguageModels(),), Path(__file__).parent)


if __name__ == "__main__":
    main(parse_arguments())

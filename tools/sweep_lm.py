#!/usr/bin/env python
"""Sweep over language models: tools/sweep.py with seed 1, into output/sweep/LLM, by default.

tools/sweep_lm.py --configs configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3
tools/sweep_lm.py --configs ... --seeds 1 2 3 TRAINING.MAX_STEPS 200
"""

from pathlib import Path

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.sweep import command
from llm.config import language_config
from llm.runs import LanguageModels


def parse_arguments():
    options = {"seeds": [1], "output_dir": "output/sweep/LLM", "data": False}
    return command.parse_arguments(__doc__, language_config(), **options)


if __name__ == "__main__":
    command.run(parse_arguments(), (LanguageModels(),), Path(__file__).parent)

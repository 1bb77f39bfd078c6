#!/usr/bin/env python
"""Sweep over language models: tools/sweep.py with seed 1, into output/sweep/LLM, by default.

tools/sweep_lm.py --configs configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3
tools/sweep_lm.py --configs ... --seeds 1 2 3 TRAINING.MAX_STEPS 200
"""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.argv[1:1] = ["--seeds", "1", "--output-dir", "output/sweep/LLM"]  # flags behind win
    runpy.run_path(str(Path(__file__).with_name("sweep.py")), run_name="__main__")

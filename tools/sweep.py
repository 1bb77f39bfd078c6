#!/usr/bin/env python
"""Train a grid of configs and seeds, and print a table of means and deviations.

tools/sweep.py --configs configs/CIFAR100/{KD,EA-KD}/resnet32x4_resnet8x4.yaml --seeds 1 2 3 4 5
tools/sweep.py --configs ... --seeds 1 2 3 --output-dir output/sweep/short --jobs 2 SOLVER.EPOCHS 60
tools/sweep.py --configs configs/Fashion-Detection/{DKD,EA-DKD}-R18-R101.yaml --seeds 1 2 3
tools/sweep.py --configs configs/LLM/tiny/{Student,KD,EA-KD}.yaml --seeds 1 2 3
tools/sweep.py --configs ... --seeds 1 2 3 --launcher slurm --slurm partition=gpu
tools/sweep.py --output-dir output/sweep/short --status
tools/sweep.py --output-dir output/sweep/short --table-only
tools/sweep.py --from-csv output/sweep/*/runs.csv
tools/sweep.py --repeat output/sweep/short/runs.csv EA-KD --seeds 1

The configs are all of detectors (AP, AP50 and AP75), of classifiers (top-1) or of language models
(ROUGE-L and exact match). Ctrl-C stops the sweep; the same command continues it. Finished runs are
not trained again. If a config, an option or a teacher has changed since, --overwrite is required,
which retrains those runs. Missing teachers, and models that students start from, are trained first.

The output folder gets table.md, table.csv and table.tex (means, published figures, and differences,
paired by seed, of EA-X and X and of EA-X and its controls), differences.png and .svg, and the
figures of each run in results.json and runs.csv. From files runs.csv, --from-csv makes the same
tables, and --repeat trains the runs of a method again and prints both figures of each seed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.sweep import arguments


def parse_arguments():
    return arguments.parse(__doc__)


def main(args, scripts=Path(__file__).parent):
    from classification.runs import Classifiers
    from eakd_det.sweep import command
    from eakd_det.sweep.detectors import Detectors
    from llm.runs import LanguageModels

    command.run(args, (LanguageModels(), Classifiers(), Detectors()), scripts)


if __name__ == "__main__":
    main(parse_arguments())

#!/usr/bin/env python
"""Evaluate language models: ROUGE-L of their answers on sets of instructions.

tools/evaluate_lm.py --config-file configs/LLM/tiny/EA-KD.yaml configs/LLM/tiny/Student.yaml
tools/evaluate_lm.py --config-file configs/LLM/EA-KD.yaml TEST.SEEDS "(10, 20, 30, 40, 50)"
tools/evaluate_lm.py --config-file configs/LLM/EA-KD.yaml --model gpt2

The table has a row for the model in the OUTPUT_DIR of each config, or for --model, and published
figures of the same sets. TEST.SETS names the sets, TEST.SEEDS the seeds of sampled generation; ()
generates greedily.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line
from eakd_det.utils.errors import UserError


def parse_arguments():
    parser = command_line.make_parser(__doc__, opts="KEY VALUE pairs of every config")
    parser.add_argument("--config-file", required=True, nargs="+", metavar="FILE")
    parser.add_argument(
        "--model", default="", help="path or hub name, in place of the model in OUTPUT_DIR"
    )
    parser.add_argument("--metric", choices=("rougeL", "exact"), default="rougeL")
    return command_line.parse_arguments(parser)


def main(args):
    from llm.config import load_config
    from llm.evaluation import evaluate
    from llm.log import show_progress
    from llm.tables import row_names, table

    show_progress()
    if args.model and len(args.config_file) > 1:
        raise UserError("--model needs exactly one --config-file, which names the sets.")
    configs = {path: load_config(path, args.opts) for path in args.config_file}
    names = row_names(configs)
    rows = {args.model or names[path]: evaluate(cfg, args.model) for path, cfg in configs.items()}
    print(table(rows, args.metric))


if __name__ == "__main__":
    command_line.run(main, parse_arguments())

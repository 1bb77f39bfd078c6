#!/usr/bin/env python
"""Train a language model, alone or with a teacher, on instructions.

tools/train_lm.py --config-file configs/LLM/tiny/EA-KD.yaml
tools/train_lm.py --config-file configs/LLM/EA-KD.yaml TEACHER.WEIGHTS ... TRAINING.BF16 True
torchrun --nproc-per-node 4 tools/train_lm.py --config-file ...
accelerate launch tools/train_lm.py --config-file ...
tools/train_lm.py --config-file ... --resume
tools/train_lm.py --config-file ... --overwrite
tools/train_lm.py --config-file ... --resume --evaluate

The teacher of TEACHER.CONFIG_FILE and the model of MODEL.CONFIG_FILE, from which the student
starts, are trained first if they have not been yet; --resume continues those, too. If OUTPUT_DIR
already holds a run, either --resume (continue it) or --overwrite (remove it and start anew) is
required; a restart by torchrun --max-restarts continues it. KEY VALUE pairs apply to this run, not
to those that are trained first.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, installed or not

import eakd_det.utils.before_torch  # noqa: F401

# isort: split

from eakd_det.utils import command_line


def parse_arguments():
    flags = ("--config-file", "--resume", "--overwrite")
    parser = command_line.make_parser(__doc__, *flags, opts="KEY VALUE pairs of the run's config")
    parser.add_argument(
        "--evaluate", action="store_true", help="evaluate on TEST.SETS, and write result.json"
    )
    return command_line.parse_arguments(parser)


def main(args):
    from accelerate import PartialState

    from llm.config import load_config
    from llm.evaluation import write_result
    from llm.log import show_progress
    from llm.training import train

    cfg = load_config(args.config_file, args.opts)
    show_progress()
    result = train(cfg, args.resume, args.overwrite, evaluates=args.evaluate)
    if not PartialState().is_main_process:
        return
    if result is not None:
        loss, seconds = result["train_loss"], result["seconds"]
        print(f"{cfg.OUTPUT_DIR}: loss {loss:.4f}, {seconds:.0f} seconds")
    if args.evaluate:
        write_result(cfg)


if __name__ == "__main__":
    stopped = "Stopped. --resume continues from the last checkpoint, if there is one."
    command_line.run(main, parse_arguments(), stopped=stopped)

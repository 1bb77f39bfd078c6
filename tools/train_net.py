#!/usr/bin/env python
"""Train or evaluate a detector; the command line is Detectron2's.

tools/train_net.py --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml --num-gpus 4
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/.../model_final.pth

--eval-only goes through the stock architecture; with --resume it takes the run's newest checkpoint.
"""

import sys

from detectron2.engine import default_argument_parser, default_setup, launch

import eakd_det.data
import eakd_det.meta_arch  # noqa: F401  (registers the meta-architectures)
from eakd_det.checkpoint import last_checkpoint
from eakd_det.config import load_config
from eakd_det.engine import DistillTrainer, evaluate, use_available_device
from eakd_det.errors import UserError


def main(args):
    cfg = load_config(args.config_file, args.opts)
    use_available_device(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    if args.eval_only:
        return evaluate(cfg, last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS)
    trainer = DistillTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    parser = default_argument_parser()
    parser.description = __doc__
    args = parser.parse_args()
    try:
        load_config(args.config_file, args.opts)  # a mistake shows before processes start
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except UserError as error:
        sys.exit(f"error: {error}")

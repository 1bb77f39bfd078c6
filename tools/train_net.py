#!/usr/bin/env python
"""Train or evaluate a detector; the command line is Detectron2's.

tools/train_net.py --config-file configs/COCO-Detection/EA-DKD-R18-R101.yaml --num-gpus 4
tools/train_net.py --config-file ... --resume
tools/train_net.py --config-file ... --eval-only MODEL.WEIGHTS output/.../model_final.pth
"""

from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser, default_setup, launch

import eakd_det.data  # noqa: F401  (registers the datasets)
import eakd_det.meta_arch  # noqa: F401  (registers the meta-architectures)
from eakd_det.checkpoint import last_checkpoint
from eakd_det.config import add_distill_config
from eakd_det.engine import DistillTrainer, evaluate, use_available_device


def setup(args) -> CfgNode:
    """The run's frozen config: defaults, then the file, then the command line."""
    cfg = get_cfg()
    add_distill_config(cfg)
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    use_available_device(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def main(args):
    cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, last_checkpoint(cfg.OUTPUT_DIR) if args.resume else cfg.MODEL.WEIGHTS)
    trainer = DistillTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )

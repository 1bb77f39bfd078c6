"""A process of a run, which torchrun's variables describe: worker.py CONFIG

It trains on the device of the config, also where there are fewer GPUs than processes, and so with
gloo; and writes its backend and weights to OUTPUT_DIR/worker_rank*.pth.
"""

import argparse
import os

import torch
from detectron2.utils import comm
from torch import distributed

from eakd_det.config.defaults import detection_config
from eakd_det.engine.launch import launch
from eakd_det.engine.trainer import DistillTrainer


def main(args):
    cfg = detection_config()
    cfg.merge_from_file(args.config)
    torch.manual_seed(cfg.SEED)  # the same first weights
    trainer = DistillTrainer(cfg)
    trainer.resume_or_load(resume=False)
    before = {name: x.cpu().clone() for name, x in trainer.model.module.named_parameters()}
    trainer.train()
    state = {
        "backend": distributed.get_backend(),
        "device": trainer.model.device.type,
        "before": before,
        "weights": {name: x.cpu() for name, x in trainer.model.module.named_parameters()},
    }
    torch.save(state, os.path.join(cfg.OUTPUT_DIR, f"worker_rank{comm.get_rank()}.pth"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    launch(main, parser.parse_args(), lambda args: "cpu")

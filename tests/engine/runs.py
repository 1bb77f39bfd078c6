"""Runs of detectors in this process, as several processes would start them."""

import random

import numpy as np
import torch

from eakd_det.engine.trainer import DistillTrainer


def draw():
    """Return a number of each random number generator."""
    return random.random(), np.random.rand(), torch.rand(()).item()


def train(cfg, output_dir, stops, *, resume=False, hook=None):
    """Train to each of the iterations with a new trainer; return the last one."""
    cfg.OUTPUT_DIR = str(output_dir)
    output_dir.mkdir(exist_ok=True)
    for stop in stops:
        # What another process would start from.
        torch.manual_seed(cfg.SEED)
        np.random.seed(cfg.SEED)
        random.seed(cfg.SEED)
        trainer = DistillTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        trainer.max_iter = stop
        trainer.register_hooks([hook])
        trainer.train()
        resume = True
    return trainer

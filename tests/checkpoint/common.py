"""Helpers of the tests of checkpoints."""

import torch
from detectron2.modeling import build_model

from eakd_det.checkpoint.checkpointer import load_strictly


def build(cfg, seed):
    torch.manual_seed(seed)
    return build_model(cfg)


def load(model, path):
    load_strictly(model, str(path), key="TEACHER.WEIGHTS")


def equal(model, state):
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

"""Runs of tiny students that are sure of some of their detections."""

import torch
from detectron2.modeling import build_model
from torch import nn

from eakd_det.checkpoint.checkpointer import SafeCheckpointer
from eakd_det.config.defaults import stock_config
from eakd_det.engine.student_config import write_student_config
from eakd_det.modeling.meta_arch.distilled import adapter_modules

NAMES = ("ant", "bee", "cat", "dog", "elk")


def save_run(cfg, folder, seed=7):
    """Write a run's folder with a random student of NAMES, and a distilled one's adapters."""
    cfg.OUTPUT_DIR = str(folder)
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 96
    write_student_config(cfg)
    torch.manual_seed(seed)
    model = build_model(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("cls_score.weight"):
                parameter.mul_(20)
            if name.endswith("cls_score.bias"):
                nn.init.zeros_(parameter)  # RetinaNet's makes it sure of nothing
    others = {"class_names": NAMES, **adapter_modules(model)}
    SafeCheckpointer(model, cfg.OUTPUT_DIR, **others).save("model_final")
    return str(folder)


def load_student(cfg, run):
    """The plain student of a run, in evaluation."""
    model = build_model(stock_config(cfg))
    model.load_state_dict(torch.load(f"{run}/model_final.pth", weights_only=True)["model"])
    return model.eval()

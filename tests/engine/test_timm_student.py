"""A run with a backbone of timm: its files, --resume, evaluation, prediction and export."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from eakd_det.checkpoint.run_folder import find_run
from eakd_det.config import add_distill_config
from eakd_det.engine import evaluate
from eakd_det.evaluation.predictor import Predictor
from eakd_det.export import export_student
from eakd_det.modeling.teacher.build import make_teacher
from eakd_det.sweep.detectors import Detectors

from .runs import train

pytest.importorskip("timm")


@pytest.fixture
def timm_cfg(run_cfg):
    cfg = run_cfg
    cfg.MODEL.BACKBONE.NAME = "build_timm_fpn_backbone"
    cfg.MODEL.TIMM.NAME = "test_resnet"
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT = "BN", 1
    cfg.DATASETS.TEST, test = (), cfg.DATASETS.TEST
    return cfg, test


def test_a_run_from_start_to_export(timm_cfg, tmp_path, caplog):
    cfg, test = timm_cfg
    weights = train(cfg, tmp_path / "whole", [4]).model.state_dict()
    resumed = train(cfg, tmp_path / "resumed", [2, 4]).model.state_dict()
    assert all(torch.equal(resumed[key], value) for key, value in weights.items())

    folder = str(tmp_path / "whole")
    run = find_run(folder)
    assert Path(run.config_file).name == "student.yaml"
    assert (tmp_path / "whole" / "student.yaml").read_text().count("DISTILL") == 0
    stock = Predictor(run, score=0.0)
    assert all(torch.equal(x, weights[key]) for key, x in stock.model.state_dict().items())
    image = np.full((64, 96, 3), 90, np.uint8)
    assert len(stock(image))

    cfg.DATASETS.TEST = test
    assert evaluate(cfg, run.weights)["bbox"]["AP"] >= 0
    assert Detectors().networks(cfg)[1] == "test_resnet-FPN"
    assert Detectors().models(cfg).startswith("test_resnet-")

    with caplog.at_level(logging.INFO):
        path = export_student(folder, str(tmp_path / "out"))
    assert "eakd_det.config.add_distill_config(cfg) before Detectron2 merges" in caplog.text
    exported = get_cfg()
    add_distill_config(exported)
    exported.merge_from_file(os.path.join(tmp_path, "out", "student.yaml"))
    model = build_model(exported)
    DetectionCheckpointer(model).load(exported.MODEL.WEIGHTS)
    assert all(torch.equal(x, weights[key]) for key, x in model.state_dict().items())

    # It can teach in turn, with its norms fused.
    config = os.path.join(tmp_path, "out", "student.yaml")
    images = [{"image": torch.full((3, 64, 96), 90, dtype=torch.uint8)}]
    plain, fast = (make_teacher(config, path, fast=fast) for fast in (False, True))
    for ours, theirs in zip(
        *(t.features(images, "RGB").values() for t in (plain, fast)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)

"""Classifiers: steps of each method in each precision, and agreement with the CPU."""

import math

import pytest

from eakd_det.analysis.metrics import read_metrics
from tests.classification.test_engine import fit

METHODS = [("KD", "DKD"), ("MLD", "CTKD"), ("REVIEWKD", "PAD"), ("FCFD",)]


@pytest.fixture
def cfg(cfg):
    """One step of 32 images, with EA weights."""
    cfg.DATASET.TRAIN_SIZE = cfg.SOLVER.BATCH_SIZE = 32
    cfg.SOLVER.EPOCHS, cfg.SOLVER.STEPS, cfg.DISTILL.EA.ENABLED = 1, (), True
    return cfg


def _losses(cfg, folder):
    fit(cfg, folder)
    metrics = read_metrics(str(folder))
    return {name: values[0][1] for name, values in metrics.items() if "loss" in name}


@pytest.mark.parametrize("methods", METHODS, ids=str)
def test_the_losses_are_those_of_the_cpu(cfg, tmp_path, full_float32, methods):
    cfg.DISTILL.METHODS = methods
    ours = _losses(cfg, tmp_path / "device")
    cfg.MODEL.DEVICE = "cpu"
    expected = _losses(cfg, tmp_path / "cpu")
    assert all(any(n.startswith(f"loss_{m.lower()}") for n in ours) for m in methods)
    assert ours == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("methods", METHODS, ids=str)
def test_half_precisions(cfg, tmp_path, methods, dtype):
    """With channels_last and a prepared teacher in the same precision, as the fast configs have."""
    cfg.DISTILL.METHODS = methods
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = True, dtype
    cfg.MODEL.CHANNELS_LAST = cfg.TEACHER.FAST = True
    cfg.TEACHER.PRECISION = "" if "FCFD" in methods else dtype  # whose paths cross both networks
    losses = _losses(cfg, tmp_path / "run")
    assert losses and all(map(math.isfinite, losses.values()))

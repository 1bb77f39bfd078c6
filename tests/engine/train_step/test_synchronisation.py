"""Operations of a step for which the host waits on a GPU, ours compared with Detectron2's."""

from collections import Counter

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.utils.events import EventStorage

from eakd_det.config.defaults import stock_config
from eakd_det.distillers import DISTILLERS
from eakd_det.engine.train_step.step import DistillStep
from tests.synchronisations import synchronisations

NOT_LOGGED = 3  # an iteration at which nothing is read for the log


def _count(trainer):
    """Run a step, and count the synchronisations of another that is not logged."""
    with EventStorage() as storage:
        for trainer.iter in (0, NOT_LOGGED):  # the first prepares the teacher
            storage.iter = trainer.iter
            torch.manual_seed(0)
            with synchronisations() as seen:
                trainer.run_step()
    return seen


def _stock(cfg, batch):
    """Count those of Detectron2's step, but for its reads of the losses."""
    torch.manual_seed(0)
    model = build_model(stock_config(cfg))
    trainer = SimpleTrainer(model, iter([batch] * 2), build_optimizer(cfg, model))
    trainer._write_metrics = lambda *_: None
    return _count(trainer)


def _ours(cfg, batch, **options):
    torch.manual_seed(0)
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    options = {"methods": cfg.DISTILL.METHODS, "read_period": 100, "fused": True, **options}
    return _count(DistillStep(model, iter([batch] * 2), optimizer, **options))


def _padding(cfg, batch):
    """Count what a teacher's stock code does when it pads images, with tensors of the CPU."""
    model = build_model(stock_config(cfg))
    with synchronisations() as seen:
        model.preprocess_image(batch)
    return seen


@pytest.mark.parametrize(
    ("methods", "precision"),
    [
        ((), None),
        (("KD",), None),
        (("DKD",), None),
        (("DKD",), torch.bfloat16),
        (("DKD", "REVIEWKD"), None),
        (("CWD", "PKD", "MGD"), None),
        (("FGD",), None),
        (("DIST", "NKD", "BOX"), None),
        (("RPN",), None),
        (("FCFD",), None),
        (("BOX", "FCFD"), torch.bfloat16),
    ],
)
def test_an_r_cnn_synchronises_as_often_as_stock(distill_cfg, batch, methods, precision):
    cfg = distill_cfg
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, bool(methods)
    expected = _stock(cfg, batch) + (_padding(cfg, batch) if methods else Counter())
    if "RPN" in methods:
        expected += Counter(nonzero=1)  # the anchors that are sampled
    # For each EA weight of the images: the images of the proposals, counted on the CPU.
    number = sum(DISTILLERS[name].compares in ("features", "heads") for name in methods)
    expected += Counter(tensor=number, repeat_interleave=number)
    assert _ours(cfg, batch, precision=precision) == expected


def test_other_optimizers_copy_and_reads_are_seen(distill_cfg, batch):
    fused = _ours(distill_cfg, batch)
    assert _ours(distill_cfg, batch, fused=False) == fused
    assert _ours(distill_cfg, batch, read_period=1) > fused


@pytest.mark.parametrize("methods", [("KD",), ("REVIEWKD",), ("KD", "REVIEWKD")])
def test_a_retinanet_selects_its_anchors_once(retina_cfg, batch, methods):
    """The number of anchors that count is not known; the selected ones are read."""
    cfg = retina_cfg
    cfg.DISTILL.METHODS, cfg.DISTILL.EA.ENABLED = methods, True
    expected = _stock(cfg, batch) + _padding(cfg, batch) + Counter(nonzero=1)
    assert _ours(cfg, batch) == expected

"""Subclasses of DistillTrainer, written as Detectron2's documentation and projects write theirs."""

import logging
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetMapper, build_detection_test_loader, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.engine import HookBase, hooks
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.utils.events import JSONWriter
from torch import nn

from eakd_det.config.defaults import stock_config
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.modeling.poolers import SparseROIAlign


class Counter(DatasetEvaluator):
    """Detections per image: an evaluator of the user's."""

    def reset(self):
        self.found = []

    def process(self, inputs, outputs):
        self.found += [len(output["instances"]) for output in outputs]

    def evaluate(self):
        return {"counter": {"mean": sum(self.found) / len(self.found)}}


class SeveralEvaluators(DistillTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return DatasetEvaluators(
            [COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR), Counter()]
        )


class PlainEvaluator(DistillTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return COCOEvaluator(dataset_name, output_dir=output_folder or cfg.OUTPUT_DIR)


class ListOfEvaluators(DistillTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return [Counter()]


class NoEvaluator(DistillTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        (SeveralEvaluators, {"bbox", "counter"}),
        (PlainEvaluator, {"bbox"}),
        (ListOfEvaluators, {"counter"}),
        (NoEvaluator, set()),
    ],
)
def test_evaluators(run_cfg, caplog, trainer, expected):
    run_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.99
    cfg = stock_config(run_cfg)
    with caplog.at_level(logging.WARNING):
        results = trainer.test(cfg, build_model(cfg))
    assert results.keys() == expected
    says_why = f"Nothing was found in {cfg.DATASETS.TEST[0]}: the highest score" in caplog.text
    assert says_why == (trainer is not NoEvaluator)


def _run(trainer_class, cfg, *, resume=False):
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer, trainer.train()


class OwnLoader(SeveralEvaluators):
    """Its own augmentation, as the tutorial of data loading has it."""

    @classmethod
    def build_train_loader(cls, cfg):
        augmentations = [T.ResizeShortestEdge((64, 80), 96, "choice"), T.RandomFlip()]
        mapper = DatasetMapper(cfg, is_train=True, augmentations=augmentations)
        return build_detection_train_loader(cfg, mapper=mapper)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        mapper = DatasetMapper(cfg, is_train=False, augmentations=[T.Resize((96, 96))])
        return build_detection_test_loader(cfg, dataset_name, mapper=mapper)


def test_a_training_loader_gets_a_part_of_the_step(run_cfg):
    """Also the one of PreciseBN, and a resumed run goes on with it."""
    cfg = run_cfg
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE = 4, 2
    cfg.SOLVER.MAX_ITER = 1
    cfg.MODEL.FPN.NORM, cfg.TEST.PRECISE_BN.ENABLED = "BN", True
    cfg.TEST.PRECISE_BN.NUM_ITER = cfg.TEST.EVAL_PERIOD = 1
    trainer, results = _run(OwnLoader, cfg)
    assert results.keys() == {"bbox", "counter"}
    assert trainer.data_loader.batch_size == 2
    [precise] = [h for h in trainer._hooks if isinstance(h, hooks.PreciseBN)]
    assert precise._data_loader.batch_size == 2
    assert trainer.cfg.SOLVER.IMS_PER_BATCH == 4
    cfg.SOLVER.MAX_ITER = 2
    resumed, _ = _run(OwnLoader, cfg, resume=True)
    assert resumed.start_iter == 1


class OwnIterable(DistillTrainer):
    """Batches of a loader that is not Detectron2's."""

    @classmethod
    def build_train_loader(cls, cfg):
        return _Batches(build_detection_train_loader(cfg))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return Counter()


class _Batches:
    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        yield from self.loader


def test_any_iterable_is_a_training_loader(run_cfg, caplog):
    run_cfg.SOLVER.MAX_ITER = 1
    _run(OwnIterable, run_cfg)
    run_cfg.SOLVER.MAX_ITER = 2
    resumed, _ = _run(OwnIterable, run_cfg, resume=True)
    assert resumed.start_iter == 1
    assert "a loader that is not Detectron2's" in caplog.text


class Wrapped(nn.Module):
    """A model without the properties that Detectron2's detectors have."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, inputs):
        return self.detector(inputs)


class OwnModel(DistillTrainer):
    @classmethod
    def build_model(cls, cfg):
        return build_model(cfg)


class OwnWrappedModel(NoEvaluator):
    @classmethod
    def build_model(cls, cfg):
        return Wrapped(build_model(cfg))


def test_a_model_pools_as_configured(run_cfg):
    run_cfg.MODEL.ROI_HEADS.POOLER_BACKEND = "sparse"
    student = OwnModel(run_cfg).model
    for model in (student, student.teacher.model):
        assert any(isinstance(m, SparseROIAlign) for m in model.modules())


def test_any_module_is_a_model(run_cfg):
    run_cfg.SOLVER.MAX_ITER = 1
    _, results = _run(OwnWrappedModel, run_cfg)
    assert not results
    saved = torch.load(Path(run_cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)
    assert "detector.roi_heads.box_predictor.cls_score.weight" in saved["model"]


class Noted(HookBase):
    """A hook of the user's with state of its own."""

    seen = 0

    def after_step(self):
        self.seen += 1

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class AllOfIt(SeveralEvaluators):
    """Everything else that DefaultTrainer lets a subclass override."""

    @classmethod
    def build_optimizer(cls, cfg, model):
        trained = [p for p in model.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=cfg.SOLVER.BASE_LR)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def build_writers(self):
        return [JSONWriter(f"{self.cfg.OUTPUT_DIR}/own.json")]

    def build_hooks(self):
        ours = super().build_hooks()
        return [Noted(), *ours]

    def run_step(self):
        self._trainer.iter = self.iter
        data = next(self._trainer._data_loader_iter)
        losses = self.model(data)
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self._trainer._write_metrics(losses, 0.0)
        self.optimizer.step()

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        results = super().test(cfg, model, evaluators)
        return OrderedDict(results, own={"metric": 7.0})

    def resume_or_load(self, resume=True):
        super().resume_or_load(resume=resume)
        self.was_resumed = self.start_iter > 0


def test_the_other_methods(run_cfg):
    cfg = run_cfg
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR = 1, 1e-3
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.TEST.EVAL_PERIOD, cfg.TEST.BEST_METRIC = 1, "own/metric"
    trainer, results = _run(AllOfIt, cfg)
    assert trainer.max_iter == 2, "the config is for 2 processes"
    assert trainer.data_loader.batch_size == 2
    assert results["own"] == {"metric": 7.0}
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5**2 * 5e-4)
    folder = Path(cfg.OUTPUT_DIR)
    assert (folder / "own.json").exists()
    assert torch.load(folder / "model_best.pth", weights_only=True)["metric"] == 7.0
    cfg.SOLVER.MAX_ITER = 2
    resumed, _ = _run(AllOfIt, cfg, resume=True)
    assert resumed.was_resumed
    assert [hook.seen for hook in resumed._hooks if isinstance(hook, Noted)] == [4]

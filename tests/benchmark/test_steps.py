import pytest
import torch
from detectron2.engine import SimpleTrainer
from torch import nn

from eakd_det.benchmark.batches import FIXED, Size, make_batch, with_options
from eakd_det.benchmark.measure import measure
from eakd_det.benchmark.steps import build_lower_bound, build_step, step_builders
from eakd_det.benchmark.variants import CPU_VARIANTS
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.modeling.poolers import SparseROIAlign
from tests.conftest import NUM_CLASSES

SIZE = Size(1, 64, 96)


@pytest.fixture
def cfg(distill_cfg):
    return with_options(distill_cfg, FIXED)


@pytest.fixture
def images():
    return make_batch(SIZE, NUM_CLASSES)


def _state(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def test_steps_of_the_trainers(cfg, images):
    """The stock student's step is Detectron2's, the distilled one DistillStep's."""
    torch.manual_seed(0)
    stock, distilled = (build_step(cfg, images, is_stock=x) for x in (True, False))
    assert type(stock.trainer) is SimpleTrainer and type(distilled.trainer) is DistillStep
    before, trained = _state(stock.trainer.model), _state(distilled.trainer.model)
    assert all(x.equal(trained[name]) for name, x in before.items())
    losses = []
    for step in (stock, distilled):
        torch.manual_seed(1)
        step()
        step()
        assert step.storage.iter == 2
        losses.append(step.losses())
    assert losses[0].items() < losses[1].items() and "loss_dkd" in losses[1]
    assert all(x.equal(before[name]) for name, x in stock.trainer.model.state_dict().items())


def test_cudnn_benchmark_is_that_of_the_config_in_a_step_alone(cfg, images):
    seen = []
    for value in (True, False):
        step = build_step(with_options(cfg, {"CUDNN_BENCHMARK": value}), images)
        step.trainer.model.register_forward_pre_hook(
            lambda *_: seen.append(torch.backends.cudnn.benchmark)
        )
        step()
    assert seen == [True, False] and torch.backends.cudnn.benchmark is False


def test_steps_are_measured(cfg, images):
    names = ("stock_step", "distill_step_plain_teacher", "distill_step_torchvision_pool")
    builders = step_builders(cfg, {name: CPU_VARIANTS[name] for name in names}, images)
    builders["bound"] = lambda: build_lower_bound(cfg, images)
    rows = measure(builders, 1)
    assert list(rows) == [*names, "bound"]
    for figures in rows.values():
        assert 0 < figures["seconds"] < 30 and figures["operations"] > 500
        assert set(figures) == {"seconds", "operations"}  # nothing that only a GPU has
    operations = {name: figures["operations"] for name, figures in rows.items()}
    assert operations["distill_step_torchvision_pool"] < operations["distill_step_plain_teacher"]


def test_variants_have_their_options(cfg, images):
    steps = {name: build() for name, build in step_builders(cfg, CPU_VARIANTS, images).items()}
    for name, step in steps.items():
        model = step.trainer.model
        is_sparse = any(isinstance(m, SparseROIAlign) for m in model.modules())
        assert is_sparse == ("MODEL.ROI_HEADS.POOLER_BACKEND" in CPU_VARIANTS[name])
        assert isinstance(model, nn.Module) and model.training
        if not name.startswith("stock"):
            assert model.teacher.fast == (name != "distill_step_plain_teacher")

"""Graphs compute what is computed without them."""

import json

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from classification.engine import ClassifierTrainer
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.modeling.teacher import build_teacher
from eakd_det.modeling.teacher.compiled import CompiledBackbone
from eakd_det.utils.cuda_graphs import CudaCapture, Graphs
from tests.classification.conftest import cfg as classifier_cfg  # noqa: F401

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("full_float32")]

# Norm of the difference, relative to that of the gradient. Kernels may differ in their order of
# sums where they find another workspace.
TOLERANCE = {"": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}


def same_in_two_orders(backbone, inputs, device):
    """Compare graphs with their absence, in turn in two streams; how many graphs there are."""
    backbone.capture = None
    expected = [backbone(x) for x in inputs]
    backbone.capture = CudaCapture
    streams = [torch.cuda.current_stream(device), torch.cuda.Stream(device)]
    streams[1].wait_stream(streams[0])
    maps = []
    for i in [*range(len(inputs)), *reversed(range(len(inputs)))]:
        with torch.cuda.stream(streams[i % 2]):
            maps.append((backbone(inputs[i]), expected[i]))
    torch.cuda.synchronize(device)
    for ours, theirs in maps:  # read at the end: no replay has overwritten them
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    return len(backbone._graphs._graphs)


@pytest.mark.parametrize("precision", ["", "bfloat16"])
def test_teacher(cuda, distill_cfg, graphs, precision):
    """A real backbone, with torch.compile's graph as it is."""
    distill_cfg.MODEL.DEVICE = str(cuda)
    distill_cfg.TEACHER.PRECISION = precision
    distill_cfg.TEACHER.COMPILE, distill_cfg.TEACHER.CUDA_GRAPHS = 128, True
    teacher = build_teacher(distill_cfg)
    teacher.prepare()
    assert teacher._backbone.capture is CudaCapture
    sizes = [(2, 3, 100, 120), (1, 3, 128, 128), (2, 3, 128, 97), (2, 3, 200, 128), (1, 3, 90, 90)]
    with torch.no_grad():
        inputs = [teacher._input(torch.rand(size, device=cuda)) for size in sizes]
        assert same_in_two_orders(teacher._backbone, inputs, cuda) == 3


class Backbone(nn.Module):
    """Two convolutions with strides."""

    size_divisibility = 4

    def __init__(self):
        super().__init__()
        self.stem, self.conv = (nn.Conv2d(n, 16, 3, stride=2, padding=1) for n in (3, 16))

    def forward(self, x):
        return {"p2": self.conv(self.stem(x).relu()).relu()}

    def output_shape(self):
        return {"p2": type("Shape", (), {"stride": 4})}


def test_code_of_inductor(cuda):
    torch.manual_seed(0)
    module = Backbone().to(cuda).eval().requires_grad_(False)
    inputs = [torch.rand(size, device=cuda) for size in [(1, 3, 50, 60), (2, 3, 33, 64)]]
    with torch.no_grad():
        assert same_in_two_orders(CompiledBackbone(module, 64), inputs, cuda) == 2


def test_random_numbers_go_on(cuda):
    """Dropout draws in each replay what it would draw without a graph."""
    function = Graphs(
        lambda x: {"y": nn.functional.dropout(x)}, CudaCapture(cuda), most=1, key="A.KEY"
    )
    drawn = []
    for is_graph in (True, False):
        torch.cuda.manual_seed(5)
        for _ in range(3):
            x = torch.ones(1000, device=cuda)
            if is_graph:
                with function(x) as outputs:
                    drawn.append(outputs["y"].clone())
            else:
                drawn.append(nn.functional.dropout(x))
    assert all(torch.equal(a, b) for a, b in zip(drawn[:3], drawn[3:], strict=True))
    assert not torch.equal(drawn[0], drawn[1])


@pytest.fixture
def run_cfg(classifier_cfg, cuda):  # noqa: F811
    """A run of 6 epochs of 5 steps, the last of an epoch smaller."""
    cfg = classifier_cfg
    cfg.MODEL.DEVICE, cfg.CUDNN_BENCHMARK = str(cuda), False
    cfg.DATASET.TRAIN_SIZE, cfg.SOLVER.EPOCHS = 35, 6
    cfg.SOLVER.CUDA_GRAPHS = True
    return cfg


def use_precision(cfg, dtype):
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = bool(dtype), dtype or "float16"


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("methods", [("KD", "DKD"), ("MLD",), ("REVIEWKD", "PAD"), ()])
def test_losses_and_gradients_of_a_step(cuda, run_cfg, dtype, methods):
    """At the same weights, for seven batches of two sizes; the optimizer steps in between."""
    run_cfg.DISTILL.METHODS, run_cfg.DISTILL.EA.ENABLED = methods, bool(methods)
    use_precision(run_cfg, dtype)
    trainer = ClassifierTrainer(run_cfg)
    if trainer.grad_scaler.is_enabled():
        trainer.grad_scaler = torch.amp.GradScaler(cuda.type, init_scale=128.0)  # no overflow
    model, batches = trainer.distilled, iter(trainer.data_loader)
    if methods:
        model.objective.agreement.is_open = False
        model.teacher.prepare()
    for iteration in range(7):
        batch, results = next(batches), []
        before = [x.clone() for x in model.buffers()]
        for compute in (lambda x: DistillStep._backward(trainer, x), trainer._backward):
            for x, value in zip(model.buffers(), before, strict=True):
                x.copy_(value)
            trainer.optimizer.zero_grad()
            with EventStorage(iteration):
                losses = compute(batch)
            gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
            buffers = [x.clone() for x in model.buffers()]
            results.append((losses, gradients, buffers))
        (losses, gradients, buffers), (graph_losses, graph_gradients, graph_buffers) = results
        tolerance = TOLERANCE[dtype]
        assert gradients.isfinite().all()
        assert (graph_gradients - gradients).norm() <= tolerance * gradients.norm()
        torch.testing.assert_close(graph_losses, losses, rtol=tolerance, atol=0)
        torch.testing.assert_close(graph_buffers, buffers, rtol=tolerance, atol=tolerance)
        trainer.grad_scaler.step(trainer.optimizer)
        trainer.grad_scaler.update()
    assert len(trainer._graphed.graphs._graphs) == 2


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_run(run_cfg, tmp_path, dtype):
    """Steps with and without a graph alternate; losses are logged, epochs end, checkpoints save."""
    use_precision(run_cfg, dtype)
    run_cfg.DISTILL.METHODS, run_cfg.SOLVER.BASE_LR = ("REVIEWKD",), 0.01
    logged = []
    for is_graph in (False, True):
        run_cfg.SOLVER.CUDA_GRAPHS = is_graph
        run_cfg.OUTPUT_DIR = str(tmp_path / str(is_graph))
        (tmp_path / str(is_graph)).mkdir()
        trainer = ClassifierTrainer(run_cfg)
        trainer.fit()
        lines = [json.loads(line) for line in (tmp_path / str(is_graph) / "metrics.json").open()]
        logged.append([x["total_loss"] for x in lines if "total_loss" in x])
    assert len(trainer._graphed.graphs._graphs) == 2
    assert logged[1] == pytest.approx(logged[0], rel=2e-3 if not dtype else 5e-2)

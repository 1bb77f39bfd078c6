import json

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from classification.distillers import DISTILLERS
from classification.engine import ClassifierTrainer
from classification.graphed_pass import check_graphs
from eakd_det.distillers.entropy_statistics import LOG_PERIOD
from eakd_det.losses import multi_level
from eakd_det.utils.errors import UserError
from tests.reads import Operators, reads
from tests.rerun import Rerun


@pytest.fixture
def long_cfg(cfg):
    """A run of 6 epochs of 5 steps, the last of an epoch smaller; one iteration logs statistics."""
    cfg.DATASET.TRAIN_SIZE = 35
    cfg.SOLVER.EPOCHS = 6
    cfg.TEST.EVAL_PERIOD = 6
    return cfg


def fit(cfg, folder, capture=None):
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    folder.mkdir()
    trainer = ClassifierTrainer(cfg)
    if capture is not None:
        trainer.replay(capture)
    top1 = trainer.fit()["top1"]
    lines = [json.loads(line) for line in (folder / "metrics.json").open()]
    losses = [{key: x for key, x in line.items() if "loss" in key} for line in lines]
    states = trainer.distilled.state_dict(), trainer.optimizer.state_dict(), torch.get_rng_state()
    return states, (top1, losses)


@pytest.mark.parametrize(
    ("methods", "dtype", "replays"),
    [
        ((), "", 30),
        (("DKD",), "", 10),  # after the count of label agreement, iteration 19
        (("REVIEWKD", "PAD"), "", 28),  # all but the first, and iteration 19
        (("MLD",), "float16", 10),
    ],
)
def test_a_run_with_graphs_is_the_same_bit_for_bit(long_cfg, tmp_path, methods, dtype, replays):
    long_cfg.DISTILL.METHODS = methods
    long_cfg.DISTILL.EA.ENABLED = methods == ("DKD",)
    long_cfg.SOLVER.AMP.ENABLED, long_cfg.SOLVER.AMP.DTYPE = bool(dtype), dtype or "float16"
    states, result = fit(long_cfg, tmp_path / "plain")
    capture = Rerun()
    graphed_states, graphed_result = fit(long_cfg, tmp_path / "graphs", capture)
    torch.testing.assert_close(graphed_states, states, rtol=0, atol=0)
    assert graphed_result == result
    assert (capture.captures, capture.replays) == (2, replays)


@pytest.mark.parametrize(
    ("method", "options", "first"),
    [
        ("REVIEWKD", {}, 1),
        ("REVIEWKD", {"WARMUP": 2.0}, 2),
        ("REVIEWKD", {"WARMUP": 2.5}, 3),
        ("CTKD", {"EPOCHS": 3}, 3),
        ("FCFD", {"FEATURE_WARMUP": 1}, None),
    ],
)
def test_steps_that_depend_on_the_iteration_are_no_graphs(cfg, method, options, first):
    """`first` is the epoch from which steps may be replayed."""
    cfg.DISTILL.METHODS = (method,)
    for key, value in options.items():
        cfg.DISTILL[method][key] = value
    distilled = ClassifierTrainer(cfg).distilled
    assert distilled.steps_per_epoch == 5
    distilled.objective.agreement.is_open = False
    distilled.teacher.is_prepared = True

    def is_static(iteration):
        with EventStorage(iteration):
            return distilled.is_static()

    static = [i for i in range(30) if is_static(i)]
    expected = [] if first is None else range(5 * (first - 1), 30)
    assert static == [i for i in expected if i != LOG_PERIOD - 1]
    distilled.objective.agreement.is_open = True
    assert not is_static(25), "samples are counted"
    distilled.objective.agreement.is_open = distilled.teacher.is_prepared = False
    assert not is_static(25), "the first step prepares the teacher"


def test_a_graph_keeps_the_gradients_of_other_steps_apart(long_cfg):
    """Steps with and without a graph alternate; a weight without a gradient has none."""
    trainer = ClassifierTrainer(long_cfg)
    trainer.replay(Rerun())
    unused = torch.nn.Parameter(torch.ones(1))
    trainer.distilled.register_parameter("unused", unused)
    weight = trainer.distilled.student.conv1.weight
    batch = next(iter(trainer.data_loader))
    seen = []
    for scale in (1, 0.5, 1):
        trainer.optimizer.zero_grad()
        losses = trainer._backward({**batch, "scale": scale})
        assert losses["loss_cls"].requires_grad and unused.grad is None
        seen.append(weight.grad)
    assert seen[0].data_ptr() == seen[2].data_ptr() != seen[1].data_ptr()
    torch.testing.assert_close(2 * seen[1], seen[2])
    assert seen[0].stride() == weight.stride()


def test_graphs_are_for_one_micro_batch_and_a_gpu(cfg, monkeypatch):
    cfg.SOLVER.CUDA_GRAPHS = True
    assert ClassifierTrainer(cfg)._graphed is None, "they act on a GPU alone"
    cfg.SOLVER.ACCUMULATE = 2
    with pytest.raises(UserError, match="SOLVER.ACCUMULATE must be 1"):
        ClassifierTrainer(cfg)
    cfg.SOLVER.ACCUMULATE = 1
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(UserError, match="SOLVER.CUDA_GRAPHS is for a single process"):
        check_graphs(cfg)


METHODS = [
    ((), {}),
    *((methods, options) for methods in [("KD", "DKD", "TTM")] for options in [{}, {"EA": True}]),
    (("WTTM", "CTKD"), {}),
    (("KD",), {"STANDARDIZE": True}),
    (("MLD",), {"STANDARDIZE": True, "EA": True}),
    (("MLD",), {"AS_INTENDED": True}),
    (("REVIEWKD", "PAD"), {"EA": True}),
]


@pytest.fixture(params=METHODS, ids=str)
def trainer(cfg, request):
    """A trainer whose steps may be replayed, with a prepared teacher."""
    cfg.DISTILL.METHODS, options = request.param
    for key, value in options.items():
        if key == "EA":
            cfg.DISTILL.EA.ENABLED = value
        else:
            cfg.DISTILL[cfg.DISTILL.METHODS[0]][key] = value
    trainer = ClassifierTrainer(cfg)
    trainer.replay(Rerun())
    if cfg.DISTILL.METHODS:
        trainer.distilled.objective.agreement.is_open = False
        trainer.distilled.teacher.prepare()
    with EventStorage(3 * LOG_PERIOD):
        yield trainer


def test_forward_and_backward_pass_read_no_value(trainer):
    batch = next(iter(trainer.data_loader))
    inputs = *batch["views"], batch["labels"]
    trainer._graphed._run(*inputs)
    shaped_by_data = [getattr(torch.ops.aten, n) for n in ("nonzero", "masked_select", "_unique2")]
    with Operators(*shaped_by_data) as more, reads() as names:
        trainer._graphed._run(*inputs)
    assert more.seen + names == []


class HostWork(TorchDispatchMode):
    """Notes the operators that take or return tensors of more than one device."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, outputs)) if isinstance(x, torch.Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            self.seen.append(str(function))
        return outputs


class FromPython(TorchFunctionMode):
    """Notes the functions that make a tensor of Python's numbers, which a GPU waits for."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor):
            self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


def to_fake_gpu(module):
    """Replace weights and buffers by fake ones on a GPU, which have no values."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, x in tensors.items():
                if x is not None:
                    fake = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
                    tensors[name] = nn.Parameter(fake) if tensors is part._parameters else fake


@pytest.mark.skipif(
    torch.__version__ < "2.7", reason="torch 2.6 aborts on fake tensors of a GPU that is not there"
)
def test_forward_pass_stays_on_a_gpu(trainer):
    """On tensors without values, as in a capture; a value that is read is an error."""
    batch, distilled = next(iter(trainer.data_loader)), trainer.distilled
    shapes = [x.shape for x in batch["views"]]
    try:
        with FakeTensorMode():
            to_fake_gpu(distilled)
            if distilled.teacher is not None:
                to_fake_gpu(distilled.teacher.model)
            views = [torch.rand(shape, device="cuda") for shape in shapes]
            labels = torch.zeros(len(batch["labels"]), dtype=torch.int64, device="cuda")
            inputs = {"views": views, "labels": labels, "scale": 1}
            distilled(inputs)  # a warm-up call
            with HostWork() as host, FromPython() as made:
                losses = distilled(inputs)
        assert host.seen + made.seen == []
        assert all(x.device.type == "cuda" and x.requires_grad for x in losses.values())
    finally:
        multi_level._factors.cache_clear()  # which has fake tensors


def test_every_method_names_its_changing_epochs():
    """Methods that draw for each step, or use the batch's epoch."""
    changing = {name: d.changing_epochs(**d.defaults) for name, d in DISTILLERS.items()}
    assert {name for name, epochs in changing.items() if epochs} == {"CTKD", "FCFD", "MGD"}

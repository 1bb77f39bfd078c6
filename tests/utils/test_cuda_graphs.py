import random
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from eakd_det.utils.cuda_graphs import WARM_UP_CALLS, CudaCapture, Graphs
from eakd_det.utils.errors import UserError
from tests.rerun import Rerun


class Function:
    """Adds its inputs, draws a number, and counts its calls in Python and in a tensor."""

    def __init__(self):
        self.calls, self.count = [], torch.zeros(())

    def __call__(self, *inputs):
        self.calls.append(inputs)
        self.count += 1
        return {"sum": sum(inputs), "draw": torch.rand(3)}


@pytest.fixture
def function():
    return Function()


@pytest.fixture
def graphs(function):
    return Graphs(function, Rerun(), most=2, key="A.KEY", state=lambda: [function.count])


def test_a_replay_computes_on_the_values_of_its_inputs(graphs, function):
    memory = set()
    for i in range(4):
        x = torch.full((2, 3), float(i))
        with graphs(x, 2 * x) as outputs:
            assert torch.equal(outputs["sum"], 3 * x)
            memory.add(outputs["sum"].data_ptr())
    assert len(memory) == 1 and graphs.capture.captures == 1 and graphs.capture.replays == 4
    assert len(function.calls) == WARM_UP_CALLS + 4
    static = function.calls[0]
    assert all(a is b for call in function.calls for a, b in zip(call, static, strict=True))


def test_warm_up_changes_neither_state_nor_random_numbers(graphs, function):
    torch.manual_seed(3)
    expected = torch.rand(2, 3)
    torch.manual_seed(3)
    for i in range(2):
        with graphs(torch.ones(2)) as outputs:
            assert torch.equal(outputs["draw"], expected.flatten()[3 * i : 3 * i + 3])
        assert function.count == i + 1


def test_each_signature_has_a_graph(function):
    graphs = Graphs(function, Rerun(), most=9, key="A.KEY")
    wide = torch.arange(6.0).view(2, 3)
    inputs = [wide, wide[:, :2], wide.double(), wide.T.contiguous().T, wide[:1], wide]
    for x in inputs:
        with graphs(x) as outputs:
            assert torch.equal(outputs["sum"], x)
            assert outputs["sum"].dtype == x.dtype
    assert graphs.capture.captures == len(inputs) - 1


def test_graphs_share_the_memory_of_inputs_and_outputs(graphs, function):
    for size in (5, 3):
        with graphs(torch.ones(size)):
            pass
    (large,), (small,) = function.calls[0], function.calls[-1]
    assert large.data_ptr() == small.data_ptr()
    with graphs(torch.ones(5)) as first, graphs(torch.full((3,), 2.0)) as second:
        assert first["sum"].data_ptr() == second["sum"].data_ptr()
        assert first["sum"].tolist() == [2, 2, 2, 1, 1], "overwritten by the other"


def test_a_larger_signature_leaves_the_memory_of_earlier_graphs(graphs):
    for size in (3, 5, 3, 5):
        x = torch.rand(size)
        with graphs(x) as outputs:
            assert torch.equal(outputs["sum"], x)


def test_signatures_beyond_the_bound_are_computed_without(graphs, function, caplog):
    with caplog.at_level("INFO"):
        for size in (2, 3, 4, 5, 2):
            x = torch.rand(size)
            with graphs(x) as outputs:
                assert torch.equal(outputs["sum"], x)
    assert graphs.capture.captures == 2 and graphs.capture.replays == 3
    assert caplog.messages == ["A.KEY: there are graphs for 2 shapes; others are computed without."]
    assert function.count == 5


def test_outputs_need_gradients_as_those_of_the_function():
    weight = torch.ones(2, requires_grad=True)
    graphs = Graphs(lambda x: {"a": weight * x, "b": 2 * x}, Rerun(), most=1, key="A.KEY")
    for _ in range(2):
        with graphs(torch.ones(2)) as outputs:
            assert outputs["a"].requires_grad and not outputs["b"].requires_grad
            assert outputs["a"].is_leaf and outputs["a"].tolist() == [1, 1]


def test_a_function_that_cannot_be_captured(function):
    class Failing(Rerun):
        def __call__(self, function):
            raise RuntimeError("operation not permitted when stream is capturing")

    graphs = Graphs(function, Failing(), most=1, key="A.KEY")
    with (
        pytest.raises(UserError, match=r"A.KEY: .* \(operation not permitted .*\). Set A.KEY to"),
        graphs(torch.ones(1)),
    ):
        pass


class FakeCuda:
    """Notes the calls of torch.cuda; streams and events are their names."""

    def __init__(self):
        self.calls, self.current = [], self.of("main")

    def of(self, name):
        def note(what):
            return lambda other: self.calls.append((name, what, other.name))

        methods = {what: note(what) for what in ("wait_stream", "wait_event", "record")}
        return SimpleNamespace(name=name, **methods)

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def graph(self, graph, **options):
        self.calls.append(("capture", options.pop("stream").name, options))
        yield
        self.calls.append("end of capture")


@pytest.fixture
def cuda(monkeypatch):
    cuda = FakeCuda()
    fakes = {
        "Stream": lambda device: cuda.of("side"),
        "Event": lambda: cuda.of("event"),
        "current_stream": lambda device: cuda.current,
        "stream": cuda.stream,
        "graph": cuda.graph,
        "graph_pool_handle": lambda: "pool",
        "CUDAGraph": lambda: SimpleNamespace(replay=lambda: cuda.calls.append("replay")),
        "get_rng_state": lambda device: cuda.calls.append("get random state"),
        "set_rng_state": lambda state, device: cuda.calls.append("set random state"),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return cuda


def test_order_of_the_calls_of_cuda(cuda):
    def function(x):
        cuda.calls.append(f"computed in {cuda.current.name}")
        return {"y": x}

    graphs = Graphs(function, CudaCapture(torch.device("cuda", 0)), most=1, key="A.KEY")
    with graphs(torch.ones(1)):
        cuda.calls.append("outputs")
    options = {"pool": "pool", "capture_error_mode": "thread_local"}
    assert cuda.calls == [
        ("main", "wait_event", "event"),
        ("side", "wait_stream", "main"),
        "get random state",
        *["computed in side"] * WARM_UP_CALLS,
        "set random state",
        ("main", "wait_stream", "side"),
        ("capture", "side", options),
        "computed in main",  # the real context of the capture sets its stream
        "end of capture",
        "replay",
        "outputs",
        ("event", "record", "main"),
    ]


@pytest.mark.parametrize("draw", [random.random, lambda: torch.rand(1)])
def test_numbers_drawn_on_the_host_are_refused(cuda, draw):
    function = lambda x: {"y": draw() * x}  # noqa: E731
    graphs = Graphs(function, CudaCapture(torch.device("cuda", 0)), most=1, key="A.KEY")
    with (
        pytest.raises(UserError, match="A.KEY: .*random numbers on the host"),
        graphs(torch.ones(1)),
    ):
        pass


def test_the_tests_capture_has_the_methods_of_the_real_one():
    names = [{n for n, x in vars(c).items() if callable(x)} for c in (CudaCapture, Rerun)]
    assert names[0] == names[1]

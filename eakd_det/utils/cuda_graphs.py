"""CUDA graphs: the kernels of a function, captured once and launched together by one call.

Where launching kernels costs more than running them, a replay takes the time of the kernels alone.
It repeats the captured work on the same addresses; no Python code of the function runs.
"""

import logging
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from .errors import UserError

Name = TypeVar("Name", bound=Hashable)

WARM_UP_CALLS = 3  # before a capture: libraries set themselves up and choose their algorithms


class CudaCapture:
    """Captures functions on a CUDA device; all CUDA calls of graphs are here.

    Warm-up and captures are in one stream, so that workspaces of libraries, one for each stream,
    exist before a capture. Captures share one pool of memory.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)  # the default stream cannot be captured
        self.pool = torch.cuda.graph_pool_handle()
        self._end = torch.cuda.Event()  # of the latest replay and the reads of its outputs

    @contextmanager
    def warm_up(self) -> Iterator[None]:
        """Run the with-block in the stream of the captures; the random state stays as before it."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.random.fork_rng(devices=[self.device]), torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        """Capture a function, without computing anything; return the function that replays it.

        Threads that pin memory may call CUDA meanwhile, hence the error mode.

        Raises:
            RuntimeError: the function cannot be captured.
        """
        graph, before = torch.cuda.CUDAGraph(), _host_random_state()
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            function()
        if _host_random_state() != before:
            raise RuntimeError("it draws random numbers on the host, which a replay would repeat")
        return graph.replay

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the with-block's work in the current stream wait for that of the block before it."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(self._end)
        yield
        self._end.record(stream)


def _host_random_state() -> tuple[Any, ...]:
    return random.getstate(), torch.get_rng_state().tolist()


@dataclass
class _Graph(Generic[Name]):
    """A captured function: its static inputs and outputs, and the function that replays it."""

    inputs: list[Tensor]
    outputs: dict[Name, Tensor]
    replay: Callable[[], None]


class Graphs(Generic[Name]):
    """A function of tensors that is captured for each signature of its inputs, and then replayed.

    A signature is shape, dtype and strides of each input. All graphs share the memory of their
    inputs, of temporary tensors and of their outputs, which a replay of another overwrites. So
    there is one replay at a time, and its outputs are read, or cloned, before the next.
    """

    def __init__(
        self,
        function: Callable[..., dict[Name, Tensor]],
        capture: CudaCapture,
        *,
        most: int,
        key: str,
        state: Callable[[], Sequence[Tensor]] = tuple,
    ):
        """
        Args:
            function: returns tensors by name. Its result depends on the inputs, on tensors that
                keep their memory (weights, running statistics) and on random numbers of the device
                alone. It reads no value back to the host. If it uses autocast, it enters it itself,
                since weights that were cast before would stay as they were.
            capture: of the device.
            most: number of graphs; inputs of other signatures are computed without one.
            key: the config key that turns graphs off, for messages.
            state: returns the tensors that the function changes in place. Warm-up calls, which
                compute, leave them as they were.
        """
        self.function, self.capture, self.state = function, capture, state
        self.most, self.key = most, key
        self._graphs: dict[Hashable, _Graph[Name]] = {}
        self._memory: dict[Hashable, Tensor] = {}
        self._is_bound_logged = False

    @contextmanager
    def __call__(self, *inputs: Tensor) -> Iterator[dict[Name, Tensor]]:
        """Compute the function; its outputs may be overwritten after the with-block.

        Blocks in several streams wait for each other.

        Raises:
            UserError: the function cannot be captured.
        """
        signature = tuple((x.shape, x.dtype, x.stride()) for x in inputs)
        if signature not in self._graphs and len(self._graphs) == self.most:
            self._log_bound()
            yield self.function(*inputs)
            return
        with self.capture.in_turn():
            graph = self._graphs.get(signature)
            if graph is None:
                graph = self._graphs[signature] = self._captured(inputs)
            _copy(graph.inputs, inputs)
            graph.replay()
            yield graph.outputs

    def _captured(self, inputs: Sequence[Tensor]) -> _Graph[Name]:
        static = [self._shared(i, x) for i, x in enumerate(inputs)]
        _copy(static, inputs)
        before = [x.clone() for x in self.state()]
        with self.capture.warm_up():
            for _ in range(WARM_UP_CALLS):
                results = self.function(*static)
        _copy(self.state(), before)
        outputs = {name: self._shared(("output", name), x) for name, x in results.items()}
        results = {}  # frees their memory before the capture

        def run() -> None:
            computed = self.function(*static)
            _copy(list(outputs.values()), [computed[name] for name in outputs])

        try:
            return _Graph(static, outputs, self.capture(run))
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a failed capture fails, too
            raise UserError(
                f"{self.key}: the computation cannot be captured as a CUDA graph ({cause}). Set "
                f"{self.key} to False."
            ) from error

    def _shared(self, name: Hashable, like: Tensor) -> Tensor:
        """Return a tensor like another, in the memory of that name that all graphs share."""
        steps = zip(like.shape, like.stride(), strict=True)
        size = 1 + sum((number - 1) * stride for number, stride in steps) if like.numel() else 0
        memory = self._memory.get((name, like.dtype))
        if memory is None or len(memory) < size:  # earlier graphs keep theirs
            memory = self._memory[name, like.dtype] = like.new_empty(size)
        return memory.as_strided(like.shape, like.stride()).requires_grad_(like.requires_grad)

    def _log_bound(self) -> None:
        if not self._is_bound_logged:
            self._is_bound_logged = True
            logging.getLogger(__name__).info(
                f"{self.key}: there are graphs for {self.most} shapes; others are computed without."
            )


@torch.no_grad()
def _copy(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)

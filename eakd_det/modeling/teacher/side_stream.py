"""Computations of a frozen network in a stream beside the student's."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SideStream:
    """A stream of a GPU; on other devices a computation is done when it is started.

    A pickled or copied one has a stream of its own.
    """

    def __init__(self):
        self._stream: torch.cuda.Stream | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_stream": None}  # a stream of a device cannot be pickled

    def start(
        self,
        compute: Callable[[], dict[str, Tensor]],
        inputs: Iterable[Tensor],
        device: torch.device,
    ) -> Callable[[], dict[str, Tensor]]:
        """Start a computation behind the work that the current stream has been given.

        Args:
            compute: returns named tensors that it allocates.
            inputs: the tensors that it reads, on any device.
            device: of the computation.

        Returns:
            A function that lets the stream in which it is called wait for the tensors, and
            returns them.
        """
        if device.type != "cuda":
            outputs = compute()
            return lambda: outputs
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        own = self._stream
        own.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(own):
            outputs = compute()
        for x in inputs:  # memory is not reused while a stream of `record_stream` reads it
            if x.device == device:
                x.record_stream(own)
        is_done = own.record_event()  # not the stream's end: the next computation comes behind

        def finish() -> dict[str, Tensor]:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(is_done)
            for x in outputs.values():
                x.record_stream(stream)
            return outputs

        return finish

    def wait(self, device: torch.device) -> None:
        """Let later computations wait for the present work of the current stream."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(device))

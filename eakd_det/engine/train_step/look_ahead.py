"""Reading of the next batch, and work on it, during the step of the present one."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, RotatedBoxes
from torch import Tensor
from torch.utils.data import DataLoader

from eakd_det.engine.hooks.data_position import image_loader


@dataclass
class _Batch:
    """A batch of the loader, and its copy on the device.

    Attributes:
        content: the batch; None if reading it has raised `error`.
        tensors: its tensors that were allocated in the stream of the copies.
        is_copied: recorded behind the copies to a GPU.
    """

    content: Any = None
    tensors: list[Tensor] = field(default_factory=list)
    is_copied: torch.cuda.Event | None = None
    error: Exception | None = None


class LookAhead:
    """Iterator over the batches of a loader, copied to the model's device, one batch ahead.

    Whenever a batch is handed out, the next one has been read, its copy has begun, and work on it
    (a teacher's features, for example) is started, before the model runs on the first. An error of
    the loader, its end among them, is raised when its batch is due.

    Attributes:
        seconds: of the last call, that reading and copying took.
    """

    def __init__(
        self,
        loader: Iterable,
        device: torch.device | None = None,
        *,
        is_ahead: bool = False,
        start: Callable[[Any], None] | None = None,
        num_batches: int | None = None,
    ):
        """
        Args:
            loader: of batches; what it yields is not changed.
            device: see `Copies`; None copies nothing.
            is_ahead: read one batch ahead.
            start: called with the next batch, in the stream that copies it.
            num_batches: beyond these none is read ahead; None if it is not known.
        """
        self._copies = None if device is None else Copies(device)
        if device is not None and device.type == "cuda" and reads_in_workers(loader):
            image_loader(loader).pin_memory = True  # in a thread of the loader
        self._batches, self._is_ahead, self._start = iter(loader), is_ahead, start
        self._num_batches, self._num_read = num_batches, 0
        self._next: _Batch | None = None
        self.seconds = 0.0

    def __iter__(self) -> "LookAhead":
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        batch = self._next or self._read()
        self._next = self._read() if self._is_ahead and self._has_next(batch) else None
        self.seconds = time.perf_counter() - start
        if batch.error is not None:
            raise batch.error
        if self._start and self._next and self._next.error is None:
            with self._copies.context() if self._copies else nullcontext():
                self._start(self._next.content)
        if self._copies:
            self._copies.hand_out(batch)
        return batch.content

    def _has_next(self, batch: _Batch) -> bool:
        is_last = self._num_batches is not None and self._num_read >= self._num_batches
        return batch.error is None and not is_last

    def _read(self) -> _Batch:
        try:
            content = next(self._batches)
        except Exception as error:  # raised again when the batch is due
            return _Batch(error=error)
        self._num_read += 1
        return self._copies(content) if self._copies else _Batch(content)


class Copies:
    """Copies of Detectron2's batches on a device: the images, and the instances of each.

    Of each sample "image" is replaced by its copy, and Instances by ones whose `to` returns the
    copy: stock models call it, and what reads them on the host (pictures of the training, for
    example) finds them there. Batches of another format stay as they are.

    Copies to a GPU are made from pinned memory in a stream of their own, and the host waits for
    none. Pinned memory is not reused before its copy has ended, since torch's allocator of it
    records every copy that does not block.
    """

    def __init__(self, device: torch.device):
        self.device, self._stream = device, None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            # Work on a copy may read the networks' weights, which the main stream moves there.
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def context(self) -> AbstractContextManager:
        """Return the context in which the copies are the current stream's."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def __call__(self, content: Any) -> _Batch:
        """Begin the copies of a batch."""
        batch = _Batch(content)
        if not (isinstance(content, list) and all(isinstance(x, dict) for x in content)):
            return batch
        with self.context():
            batch.content = [
                {name: self._copy(name, value, batch) for name, value in sample.items()}
                for sample in content
            ]
            if self._stream is not None:
                batch.is_copied = self._stream.record_event()
        return batch

    def hand_out(self, batch: _Batch) -> None:
        """Let the current stream wait for the copies of a batch, and own them."""
        if batch.is_copied is None:
            return
        main = torch.cuda.current_stream(self.device)
        main.wait_event(batch.is_copied)
        for x in batch.tensors:  # their memory is not reused while this stream reads it
            x.record_stream(main)

    def _copy(self, name: str, value: Any, batch: _Batch) -> Any:
        """Return what replaces a value of a sample, and add its tensors to the batch's."""
        if isinstance(value, Instances):
            fields = value.get_fields().items()
            return _Copied(value, {name: self._copy_field(x, batch) for name, x in fields})
        is_image = name == "image" and isinstance(value, Tensor)
        return self._copy_tensor(value, batch) if is_image else value

    def _copy_field(self, value: Any, batch: _Batch) -> Any:
        if isinstance(value, Tensor):
            return self._copy_tensor(value, batch)
        if type(value) in (Boxes, RotatedBoxes, BitMasks, Keypoints):
            return type(value)(self._copy_tensor(value.tensor, batch))
        return value  # `Instances.to` moves it, in the main stream

    def _copy_tensor(self, x: Tensor, batch: _Batch) -> Tensor:
        if x.device == self.device:
            return x
        if self._stream is not None:
            x = x.pin_memory()  # the same if the loader has done it
        x = x.to(self.device, non_blocking=True)
        batch.tensors.append(x)
        return x


class _Copied(Instances):
    """Instances on the host whose `to` starts from a copy on the device."""

    def __init__(self, instances: Instances, fields: dict[str, Any]):
        """
        Args:
            fields: those of the instances, some of them copied.
        """
        super().__init__(instances.image_size, **instances.get_fields())
        self._copy = Instances(instances.image_size, **fields)

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        return self._copy.to(*args, **kwargs)


def reads_in_workers(loader: Iterable) -> bool:
    """Return whether worker processes read and augment the images of a training loader.

    Only then reading ahead leaves the random numbers of this process alone, which a checkpoint
    holds.
    """
    inner = image_loader(loader)
    return isinstance(inner, DataLoader) and inner.num_workers > 0

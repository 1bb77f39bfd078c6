"""Streams of a GPU that there need not be: they check the order of what real code does in them."""

from collections import defaultdict
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Stream:
    """A stream that knows how much work of each stream its next work comes behind."""

    def __init__(self, device=None):
        self.seen = defaultdict(int)

    def record_event(self):
        return dict(self.seen)

    def wait_event(self, event):
        for stream, count in event.items():
            self.seen[stream] = max(self.seen[stream], count)

    def wait_stream(self, stream):
        self.wait_event(stream.seen)


class Streams(TorchDispatchMode):
    """A mode whose tensors on "cuda:0" have no values, and whose operators run in a stream.

    Attributes:
        faults: operators that do not wait for what they read, and tensors whose memory may be
            reused while a stream reads them, in words.
        blocking: shapes of the copies to the device for which the host waits.
        copied: number of copies to the device.
    """

    def __init__(self):
        super().__init__()
        self.current = _Stream()
        self.faults, self.blocking, self.copied = [], [], 0
        self._written = {}  # storage -> its stream, and the number of its work there
        self._unrecorded = {}  # storage, stream that reads it -> operator
        self._pinned, self._storages = set(), {}  # kept, so that no address comes twice

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        self.current.seen[self.current] += 1
        for x in _on_device((args, kwargs)):
            self._read(self._key(x), function)
        for x in _on_device(output):
            now = self.current, self.current.seen[self.current]
            if function._schema.is_mutable:
                self._written[self._key(x)] = now
            self._written.setdefault(self._key(x), now)  # a view is of what was written before
        if function is torch.ops.aten._to_copy.default and not args[0].is_cuda and output.is_cuda:
            self.copied += 1
            if not (kwargs.get("non_blocking") and args[0] in self._pinned):
                self.blocking.append(args[0].shape)
        return output

    def _read(self, key, function):
        writer, count = self._written[key]
        if self.current.seen[writer] < count:
            self.faults.append(f"{function} reads too early")
        if self.current is not writer:
            self._unrecorded.setdefault((key, self.current), function)

    def _key(self, x):
        storage = x.untyped_storage()
        return self._storages.setdefault(storage._cdata, storage)._cdata

    def check_memory(self, weights):
        """Note the tensors that are read in streams that their memory has not been told of.

        Args:
            weights: tensors that live longer than the streams' work.
        """
        kept = {self._key(x) for x in weights}
        for (key, _), function in self._unrecorded.items():
            if function and key not in kept:
                self.faults.append(f"{function} reads what may be gone")

    @contextmanager
    def use(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def record(self, x, stream):
        self._unrecorded[self._key(x), stream] = None

    def pin(self, x):
        pinned = x.clone()
        self._pinned.add(pinned)
        return pinned


def _on_device(values):
    return [x for x in tree_leaves(values) if isinstance(x, Tensor) and x.is_cuda]


@contextmanager
def streams(monkeypatch):
    """Replace CUDA's streams and tensors by those that check, in the with-block."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, Streams() as checked, monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "Stream", _Stream)
        patch.setattr(torch.cuda, "stream", checked.use)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: checked.current)
        patch.setattr(Tensor, "record_stream", lambda x, stream: checked.record(x, stream))
        patch.setattr(Tensor, "pin_memory", lambda x: checked.pin(x))
        yield checked

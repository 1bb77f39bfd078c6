"""The frozen teacher that detectors, classifiers and language models specialise."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from eakd_det.utils.precision import Precision

from .fuse_norms import freeze
from .output_difference import log_output_difference


class FrozenTeacher:
    """A frozen network; a plain object, so that no module, optimizer, state_dict or DDP has it.

    A subclass adds methods that return the outputs its students are compared with, and overrides
    `_fuse_norms`.

    Attributes:
        model: the network, in eval mode.
        fast: whether `prepare` fuses norms and sets the memory format channels_last.
        precision: that of its forward pass once it is prepared.
        is_prepared: False while `prepare` has something to do.
    """

    def __init__(self, model: nn.Module, *, fast: bool = False, precision: Precision | None = None):
        """
        Args:
            model: a network with its weights. It is frozen and set to eval mode in place.
            precision: None is that of the student around it.
        """
        self.model = freeze(model)
        self.fast, self.precision = fast, precision or Precision()
        self.is_prepared = not (fast or self.precision.name)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def prepare(self, outputs: Callable[[], Sequence[Tensor]] | None = None) -> None:
        """Fuse norms, cast the weights and set their memory format, in place and once.

        Args:
            outputs: computes logits of some batch with the network as it is at that moment. It is
                called before and after, and the log says how far they differ. None logs nothing.
        """
        if self.is_prepared:
            return
        self.precision.warn_if_slow(self.device)
        before = outputs() if outputs else []
        self._optimize()
        self.is_prepared = True
        if outputs:
            log_output_difference(before, outputs())

    def context(self) -> AbstractContextManager:
        """Return the context of a forward pass: its precision; unprepared, that around it."""
        return self.precision.context(self.device) if self.is_prepared else nullcontext()

    def _input(self, images: Tensor) -> Tensor:
        """Return the images in the precision and memory format of the prepared weights."""
        if not self.is_prepared:
            return images
        layout = torch.channels_last if self.fast else torch.preserve_format
        return images.to(dtype=self.precision.dtype, memory_format=layout)

    def _optimize(self) -> None:
        if self.fast:
            self._fuse_norms()
            self.model.to(memory_format=torch.channels_last)
        if self.precision.dtype is not None:
            self._cast(self.precision.dtype)

    def _fuse_norms(self) -> None:
        """Fuse norms into convolutions, in place."""
        raise NotImplementedError

    def _cast(self, dtype: torch.dtype) -> None:
        self.model.to(dtype)

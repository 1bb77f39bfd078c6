"""Averaging of batch norms' running statistics over processes."""

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, nn


class AverageBuffers(HookBase):
    """Average batch norms' running statistics over the processes at the end of each epoch.

    Each process has seen different images. Register the hook before those that save and evaluate,
    so that the evaluated model is the saved one.
    """

    def __init__(self, model: nn.Module, period: int):
        """
        Args:
            model: its floating-point buffers are averaged.
            period: iterations per epoch.
        """
        self.model, self.period = model, period

    @torch.no_grad()
    def after_step(self) -> None:
        if comm.get_world_size() == 1 or (self.trainer.iter + 1) % self.period:
            return
        buffers = [b for b in self.model.buffers() if b.is_floating_point()]
        if not buffers:
            return
        mean = torch.cat([buffer.flatten() for buffer in buffers])  # one all_reduce for all buffers
        distributed.all_reduce(mean)
        mean /= comm.get_world_size()
        parts = mean.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

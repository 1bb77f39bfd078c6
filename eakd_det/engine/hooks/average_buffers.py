"""Running statistics of several processes."""

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import distributed, nn


class AverageBuffers(HookBase):
    """Averages the running statistics of batch norms over the processes at the end of each epoch.

    Each process has trained on other images; the average is saved and evaluated.
    """

    def __init__(self, model: nn.Module, period: int):
        """
        Args:
            model: module whose buffers are averaged.
            period: iterations of an epoch.
        """
        self.model, self.period = model, period

    @torch.no_grad()
    def after_step(self) -> None:
        if comm.get_world_size() == 1 or (self.trainer.iter + 1) % self.period:
            return
        buffers = [b for b in self.model.buffers() if b.is_floating_point()]
        if not buffers:
            return
        mean = torch.cat([buffer.flatten() for buffer in buffers])  # one message for all
        distributed.all_reduce(mean)
        mean /= comm.get_world_size()
        parts = mean.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))

"""Forward and backward pass of a classifier's step as a CUDA graph, SOLVER.CUDA_GRAPHS."""

from collections.abc import Callable, Hashable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor, nn

from eakd_det.utils.cuda_graphs import CudaCapture, Graphs
from eakd_det.utils.errors import UserError

from .distilled import DistilledClassifier

KEY = "SOLVER.CUDA_GRAPHS"
MOST_SIZES = 2  # of batches: all are of one size but the last of an epoch


def check_graphs(cfg: CfgNode) -> None:
    """Check that steps can be replayed with a config.

    Raises:
        UserError: a step has several micro-batches, or there are several processes.
    """
    if cfg.SOLVER.ACCUMULATE > 1:
        raise UserError(f"{KEY} replays one micro-batch a step: SOLVER.ACCUMULATE must be 1.")
    if comm.get_world_size() > 1:
        raise UserError(f"{KEY} is for a single process: set it to False.")


class GraphedPass:
    """Forward and backward pass of a step, replayed where it is computed from tensors alone.

    Other steps (see `DistilledClassifier.is_static`) are computed as without it.
    """

    def __init__(
        self,
        distilled: DistilledClassifier,
        compute: Callable[[dict[str, Any]], dict[str, Tensor]],
        capture: CudaCapture,
    ):
        """
        Args:
            compute: computes the losses of a batch, and adds their gradients to the weights'.
            capture: of the device.
        """
        self.distilled, self.compute = distilled, compute
        self.graphs = Graphs(
            self._run, capture, most=MOST_SIZES, key=KEY, state=lambda: list(distilled.buffers())
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Compute the losses of a batch and the gradients of the weights, which have none before.

        The gradients are valid until the next call. Needs Detectron2's event storage.
        """
        if batch["scale"] != 1 or not self.distilled.is_static():
            return self.compute(batch)
        losses = {}
        with self.graphs(*batch["views"], batch["labels"]) as outputs:
            for key, x in outputs.items():
                if isinstance(key, nn.Parameter):
                    key.grad = x  # read in this stream, before the next replay
                else:
                    losses[key] = x
        return losses

    def _run(self, *tensors: Tensor) -> dict[Hashable, Tensor]:
        """Return the losses of views and labels by name, and the gradients by weight."""
        *views, labels = tensors
        weights = [p for p in self.distilled.parameters() if p.requires_grad]
        for p in weights:
            p.grad = None
        losses = self.compute({"views": views, "labels": labels, "scale": 1})
        gradients = {p: p.grad for p in weights if p.grad is not None}
        for p in weights:
            p.grad = None
        return {**losses, **gradients}

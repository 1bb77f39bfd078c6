"""Steps whose losses have not been read from the device."""

import os
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_atomically

MAX_IMAGES = 16  # that a message names


@dataclass
class PendingStep:
    """A step whose losses have not been read from the device.

    Attributes:
        iteration: of the run.
        data_time: seconds that loading its data took.
        images: names of its images.
        losses: (number of losses,) mean of each over the micro-batches.
        has_gradient: name of each loss -> does it have a gradient?
        is_skipped: scalar, a loss or the gradient is not finite and the step is left out.
        values, was_skipped: name -> loss, and `is_skipped`, after `read_steps`, on the CPU.
    """

    iteration: int
    data_time: float = 0.0
    images: list[str] = field(default_factory=list)
    losses: Tensor | None = None
    has_gradient: dict[str, bool] = field(default_factory=dict)
    is_skipped: Tensor | None = None
    values: dict[str, Tensor] = field(default_factory=dict)
    was_skipped: bool = False

    def non_finite(self) -> list[str]:
        """Describe the losses that are not finite, once they are read."""
        return [f"{n} is {v.item()}" for n, v in self.values.items() if not torch.isfinite(v)]


def read_steps(pending: list[PendingStep]) -> None:
    """Read the losses of pending steps in one transfer from the device."""
    if not pending:
        return
    rows = [torch.cat([step.losses, step.is_skipped[None]]) for step in pending]
    values = torch.cat(rows).cpu().split([len(row) for row in rows])
    for step, (*losses, is_skipped) in zip(pending, values, strict=True):
        step.values = dict(zip(step.has_gradient, losses, strict=True))
        step.was_skipped = bool(is_skipped)


def write_steps(pending: list[PendingStep]) -> None:
    """Write the losses of read steps, as SimpleTrainer.write_metrics does those of one.

    The processes send those of all steps at once to the first one, which writes their means.
    """
    own = [({n: v.item() for n, v in step.values.items()}, step.data_time) for step in pending]
    storage = get_event_storage()
    for step in pending:
        storage.put_scalar("rank_data_time", step.data_time, cur_iter=step.iteration)
    gathered = comm.gather(own)
    if not comm.is_main_process():
        return
    for step, *of_processes in zip(pending, *gathered, strict=True):
        losses, times = zip(*of_processes, strict=True)
        means = {name: np.mean([x[name] for x in losses]) for name in losses[0]}
        scalars = {"data_time": max(times), "total_loss": sum(means.values())}
        scalars |= means if len(means) > 1 else {}
        storage.put_scalars(cur_iter=step.iteration, **scalars)


def stop_at(
    step: PendingStep,
    faults: list[str],
    *,
    iteration: int,
    model: nn.Module,
    output_dir: str,
    advice: str,
) -> NoReturn:
    """Save the model and stop the run at a step that is not finite.

    Args:
        step: the one that is not finite.
        faults: descriptions of its values that are not finite.
        iteration: the present one, which may be later; the model is as before it.
        model: to save.
        output_dir: folder for non_finite_rank*.pth.
        advice: a remedy, for the message.

    Raises:
        UserError: always; it names the values, the images and the file.
    """
    images = step.images
    # The other processes wait for this one to gather the metrics, and end with it.
    path = os.path.join(output_dir, f"non_finite_rank{comm.get_rank()}.pth")
    more = f" and {len(images) - MAX_IMAGES} more" if len(images) > MAX_IMAGES else ""
    with write_atomically(path, "wb") as f:
        torch.save({"model": model.state_dict(), "iteration": step.iteration, "images": images}, f)
    later = iteration - step.iteration
    when = f"{later} steps later, which this one did not change," if later else "before it"
    raise UserError(
        f"At iteration {step.iteration} {', '.join(faults)}, with the images "
        f"{', '.join(images[:MAX_IMAGES])}{more}. The model {when} is saved in "
        f"{path}. {advice}"
    )

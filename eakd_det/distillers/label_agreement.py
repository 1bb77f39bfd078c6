"""Share of the training samples that a teacher classifies as their label."""

import logging

import torch
from torch import Tensor

ENOUGH = 100  # samples for a share in percent

# A teacher that is worth learning from is right about more training samples; by chance, or with its
# classes in another order, it is about the share of one class, of two or more.
LOW = 0.5


class LabelAgreement:
    """Counts the training samples that a teacher classifies as their label, on their device.

    Attributes:
        is_open: whether samples are still counted.
    """

    def __init__(self, samples: str, causes: str, *, is_open: bool = True):
        """
        Args:
            samples: name of the samples in the log, in the plural.
            causes: possible causes of a low share, for the log.
        """
        self.samples, self.causes, self.is_open = samples, causes, is_open
        self._counts = torch.zeros((), dtype=torch.int64)  # then (2,) on the device of the samples

    @torch.no_grad()
    def count(self, teacher_logits: Tensor, labels: Tensor) -> None:
        """Count the samples of a batch.

        Args:
            teacher_logits: (R, K) of the K classes of a label.
            labels: (R,); others than these classes (background, for one) are left out.
        """
        number = teacher_logits.shape[1]
        is_labelled = (labels >= 0) & (labels < number)
        is_right = is_labelled & (teacher_logits.argmax(dim=1) == labels)
        self._counts = self._counts + torch.stack([is_right.sum(), is_labelled.sum()])
        self.is_open = number > 1  # one class is always right

    def report(self) -> None:
        """Read the counts from the device; log the share, once there are ENOUGH samples."""
        right, number = self._counts.tolist()
        if number < ENOUGH:
            return
        self.is_open = False
        text = (
            f"The teacher classifies {100 * right / number:.0f} % of {number} training "
            f"{self.samples} as their label"
        )
        if right < LOW * number:
            logging.getLogger(__name__).warning(f"{text}. {self.causes}")
        else:
            logging.getLogger(__name__).info(text)

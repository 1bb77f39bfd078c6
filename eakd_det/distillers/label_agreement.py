"""Share of the training samples that a teacher classifies as their label."""

import logging

import torch
from torch import Tensor

ENOUGH = 100  # samples for a share in percent


# A teacher that is worth learning from is right about more training samples; by chance, or with its
# classes in another order, it is about the share of one class, of two or more.
LOW = 0.5


class LabelAgreement:
    """Number of training samples that a teacher calls by their label, counted on their device.

    Attributes:
        is_open: whether samples are still counted.
    """

    def __init__(self, samples: str, causes: str, *, is_open: bool = True):
        """
        Args:
            samples: what they are, in the plural.
            causes: what a low share may come from, for the log.
        """
        self.samples, self.causes, self.is_open = samples, causes, is_open
        self._counts: Tensor | int = 0

    @torch.no_grad()
    def count(self, teacher_logits: Tensor, labels: Tensor) -> None:
        """
        Args:
            teacher_logits: (R, K) of the K classes that a label can be.
            labels: (R,); others than these classes (background, for one) are left out.
        """
        number = teacher_logits.shape[1]
        is_labelled = (labels >= 0) & (labels < number)
        is_right = is_labelled & (teacher_logits.argmax(dim=1) == labels)
        self._counts = self._counts + torch.stack([is_right.sum(), is_labelled.sum()])
        self.is_open = number > 1  # one class is always right

    def report(self) -> None:
        """Read the counts from the device, and log the share if they are enough: once."""
        right, number = self._counts.tolist()
        if number < ENOUGH:
            return
        self.is_open = False
        text = (
            f"The teacher calls {100 * right / number:.0f} % of the training {self.samples} by "
            f"their label ({number} looked at)"
        )
        if right < LOW * number:
            logging.getLogger(__name__).warning(f"{text}. {self.causes}")
        else:
            logging.getLogger(__name__).info(text)

"""A model with a teacher at its side."""

import copy
from typing import Any

from torch import nn


class Taught(nn.Module):
    """A module that leads a frozen teacher along; deep copies share the teacher and leave it alone.

    Attributes:
        teacher: with its network as `model`, and no nn.Module; None if there is none.
        leads: whether the teacher goes where the module goes; a copy (an average of the weights,
            for example) does not lead it.
    """

    teacher: Any = None
    leads = True

    def _apply(self, fn, *args, **kwargs):
        """Move the teacher along."""
        if self.teacher is not None and self.leads:
            self.teacher.model._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Taught":
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        memo[id(self.teacher)] = self.teacher
        vars(copied).update({name: copy.deepcopy(x, memo) for name, x in vars(self).items()})
        copied.leads = False
        return copied

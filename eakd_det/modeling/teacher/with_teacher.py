"""A mixin for modules that hold a frozen teacher."""

import copy
from typing import Any

from torch import nn


class WithTeacher(nn.Module):
    """A module with a teacher outside of its submodules, which moves to the module's device.

    Attributes:
        teacher: a FrozenTeacher, or None.
        moves_teacher: False for deep copies (an average of the weights, for example): they share
            the teacher, and neither move nor cast it.
    """

    teacher: Any = None
    moves_teacher = True

    def _apply(self, fn, *args, **kwargs):
        """Move or cast the teacher, too."""
        if self.teacher is not None and self.moves_teacher:
            self.teacher.model._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "WithTeacher":
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        memo[id(self.teacher)] = self.teacher
        copied.__dict__.update({name: copy.deepcopy(x, memo) for name, x in vars(self).items()})
        copied.moves_teacher = False
        return copied

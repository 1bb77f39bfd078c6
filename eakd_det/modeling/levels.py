"""Choice of the feature maps that are compared."""

import difflib
from collections.abc import Sequence

from eakd_det.utils.errors import UserError


def choose_levels(matched: list[tuple[str, str]], names: Sequence[str]) -> list[tuple[str, str]]:
    """Keep the levels that are named, in the order of `matched`; all of them without names.

    Args:
        matched: names of the student's and the teacher's map of each level.
        names: of the student's maps, DISTILL.LEVELS.

    Raises:
        UserError: a name is unknown.
    """
    known = [student for student, _ in matched]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"DISTILL.LEVELS: {name!r} is no feature map that student and teacher share.{hint} "
                f"They share {', '.join(known)}."
            )
    return [pair for pair in matched if not names or pair[0] in names]

"""The error that a user can mend."""

MOST_SHOWN = 20  # faults that a message lists
OF_A_WORKER = "Caught UserError in "  # begins the text that a DataLoader makes of a worker's error


class UserError(ValueError):
    """A mistake in a config, a file or the data, told in one sentence that says what to do.

    The command lines print its text alone; any other exception keeps its traceback. Raised in a
    worker of a DataLoader, it reaches the main process with the same text.
    """

    def __init__(self, text: str):
        if text.startswith(OF_A_WORKER):  # and the traceback follows, which ends with ours
            text = text.rsplit(f"{UserError.__name__}: ", 1)[-1].rstrip()
        super().__init__(text)


def listed(faults: list[str]) -> str:
    """Faults as indented lines, at most MOST_SHOWN of them."""
    more = len(faults) - MOST_SHOWN
    shown = faults[:MOST_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return "\n".join(f"  {fault}" for fault in shown)

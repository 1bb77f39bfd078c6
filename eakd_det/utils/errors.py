"""Exception for errors that the user can correct."""

MOST_SHOWN = 20  # problems listed in a message
WORKER_PREFIX = "Caught UserError in "  # start of the text that a DataLoader gives a worker's error


class UserError(ValueError):
    """Error in a config, a file or the data; its text tells what is wrong and what to do.

    The command lines print only its text, but the traceback of any other exception. If it is
    raised in a worker of a DataLoader, it has the same text in the main process.
    """

    def __init__(self, text: str):
        if text.startswith(WORKER_PREFIX):  # a traceback follows, which ends with the original text
            text = text.rsplit(f"{UserError.__name__}: ", 1)[-1].rstrip()
        super().__init__(text)


def format_problems(problems: list[str]) -> str:
    """Format problems as indented lines, at most MOST_SHOWN of them."""
    more = len(problems) - MOST_SHOWN
    shown = problems[:MOST_SHOWN] + ([f"and {more} more"] if more > 0 else [])
    return "\n".join(f"  {problem}" for problem in shown)

"""Progress of a sweep over all its runs, in a line that stays in place on a terminal."""

import heapq
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


@dataclass(frozen=True)
class Progress:
    """Numbers of runs. Teachers are counted while they are trained and if they have failed.

    Attributes:
        left: runs that are not started, or stopped.
        seconds: estimate of the time left; None without a finished run.
    """

    done: int
    running: int
    failed: int
    left: int
    seconds: float | None

    def __str__(self) -> str:
        time = "" if self.seconds is None else f", time left {duration(self.seconds)}"
        counts = f"done {self.done}, running {self.running}, failed {self.failed}, left {self.left}"
        return counts + time


def duration(seconds: float) -> str:
    """Return "1:02:03"."""
    return str(timedelta(seconds=round(seconds)))


def estimate(
    times: Sequence[float], running: Sequence[float], left: int, slots: int
) -> float | None:
    """Estimate the time in seconds until all runs are finished.

    Args:
        times: of the finished runs; without any the estimate is None.
        running: time since the start of each run that is being trained.
        left: number of the others.
        slots: runs that are trained at once.
    """
    if not times:
        return None
    mean = sum(times) / len(times)
    ends = [max(mean - seconds, 0.0) for seconds in running]
    ends += [0.0] * (max(slots, 1) - len(ends))
    heapq.heapify(ends)
    for _ in range(left):
        heapq.heapreplace(ends, ends[0] + mean)
    return max(ends)


class ProgressLine:
    """Line of a terminal below the log."""

    def __init__(self, bar: tqdm):
        self._bar = bar

    def show(self, progress: Progress) -> None:
        """Replace the line."""
        text = str(progress)
        if not self._bar.disable and text != self._bar.desc:
            self._bar.n = progress.done + progress.failed
            self._bar.set_description_str(text)


@contextmanager
def progress_line(total: int) -> Iterator[ProgressLine]:
    """Keep a line during the with-block if stdout is a terminal; log messages appear above it.

    Args:
        total: number of runs.
    """
    how = {"bar_format": "[{bar:12}] {desc}", "ascii": " #", "dynamic_ncols": True}
    is_terminal = sys.stdout.isatty()
    with tqdm(total=total, file=sys.stdout, leave=False, disable=not is_terminal, **how) as bar:
        if is_terminal:
            with logging_redirect_tqdm():
                yield ProgressLine(bar)
        else:
            yield ProgressLine(bar)

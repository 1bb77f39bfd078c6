"""State of a sweep, read from its folders by any machine that sees them."""

import os
import textwrap
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tabulate import tabulate

from eakd_det.utils.errors import UserError
from eakd_det.utils.files import read_json, write_json
from eakd_det.utils.heartbeat import BEAT_SECONDS, DEAD_SECONDS, read_holder, server_time
from eakd_det.utils.lock import RUNNING, Lock

from .jobs import TeacherJob
from .progress import Progress, duration, estimate
from .run import LOG, RECORD, Run

GRID = "grid.json"  # runs and teachers of all sweeps into the folder
REASON_WIDTH = 100


@dataclass(frozen=True)
class State:
    """State of a run or a teacher.

    Attributes:
        title: its name.
        state: "done", "running", "failed", "stopped" or "left".
        note: its machine, or the reason of its end.
        seconds: time of the training if it is done, or since its start.
    """

    title: str
    state: str
    note: str = ""
    seconds: float = 0.0


def note_grid(output_dir: str, runs: Iterable[Run], teachers: Iterable[TeacherJob]) -> None:
    """Add the runs and the missing teachers of a sweep to grid.json."""
    path = Path(output_dir, GRID)
    noted = read_json(path)
    folders = dict.fromkeys(noted.get("runs", []))
    folders |= dict.fromkeys(run.folder.relative_to(output_dir).as_posix() for run in runs)
    entries = {
        job.title: {"folder": str(job.folder.absolute()), "outcome": job.outcome_file.name}
        for job in teachers
    }
    write_json(path, {"runs": [*folders], "teachers": noted.get("teachers", {}) | entries})


def status(output_dir: str, runs: Sequence[Run] = ()) -> str:
    """Return the progress of a sweep, and a table of the runs that are trained or have failed.

    Args:
        output_dir: of the sweep.
        runs: to which the status is restricted; empty for all in the folder. Their results count
            if they are of the same config, options and teacher.

    Raises:
        UserError: there is no sweep in the folder.
    """
    grid = read_json(Path(output_dir, GRID))
    folders = [run.folder for run in runs] or _folders(output_dir, grid)
    if not folders:
        raise UserError(f"{output_dir} holds no sweep.")
    now, warning = _server_time(output_dir)
    current = {run.folder: run.result() is not None for run in runs}
    states = [_of_run(folder, output_dir, now, current) for folder in folders]
    teachers = [
        _of_teacher(title, entry, output_dir, now)
        for title, entry in grid.get("teachers", {}).items()
    ]
    shown = [s for s in [*teachers, *states] if s.state in ("running", "failed", "stopped")]
    text = str(_progress(states, teachers))
    if shown:
        rows = [(s.title, s.state, s.note) for s in shown]
        text += "\n\n" + tabulate(rows, ("Run", "State", ""), disable_numparse=True)
    if any(s.state == "failed" for s in states):
        text += f"\n\nOutput of a run: {Path(output_dir, 'RUN', LOG)}"
    return f"{text}\n\n{warning}" if warning else text


def _server_time(output_dir: str) -> tuple[float, str]:
    """Return the file server's time; or this machine's, and a warning, if it cannot be read."""
    if not os.path.isdir(output_dir):  # nothing has started yet
        return time.time(), ""
    try:
        return server_time(output_dir), ""
    except OSError as error:
        why = f"{output_dir} cannot be written ({error.strerror})"
        return time.time(), f"{why}: what runs is judged by the clock of this machine."


def _folders(output_dir: str, grid: dict[str, Any]) -> list[Path]:
    """Return the folders of the runs in grid.json, and of those of earlier versions."""
    started = sorted(path.parent for path in Path(output_dir).glob(f"*/*/seed*/{RECORD}"))
    return list(dict.fromkeys([*(Path(output_dir, x) for x in grid.get("runs", [])), *started]))


def _progress(states: Sequence[State], teachers: Sequence[State]) -> Progress:
    numbers = {
        name: sum(s.state == name for s in [*states, *teachers]) for name in ("running", "failed")
    }
    done = [s.seconds for s in states if s.state == "done"]
    left = sum(s.state in ("left", "stopped") for s in states)
    running = [s.seconds for s in states if s.state == "running"]
    times = [seconds for seconds in done if seconds]
    seconds = estimate(times, running, left, len(running)) if left or running else None
    return Progress(len(done), left=left, seconds=seconds, **numbers)


def _of_run(folder: Path, output_dir: str, now: float, current: dict[Path, bool]) -> State:
    """Return the state of a run.

    Args:
        current: folder -> the result is of the run as it is planned; without an entry it is.
    """
    title = f"{folder.parent.relative_to(output_dir)} seed {folder.name.removeprefix('seed')}"
    outcome = read_json(folder / RECORD).get("outcome", {})
    if running := _running(title, folder / RUNNING, now):
        return running
    if current.get(folder, (folder / "result.json").exists()):
        return State(title, "done", seconds=outcome.get("seconds", 0.0))
    return _ended(title, outcome)


def _of_teacher(title: str, entry: dict[str, str], output_dir: str, now: float) -> State:
    outcome = read_json(Path(output_dir, "teachers", entry["outcome"]))
    heartbeat = Path(Lock.of_folder(entry["folder"]).heartbeat.path)
    return _running(title, heartbeat, now) or _ended(title, outcome)


def _running(title: str, heartbeat: Path, now: float) -> State | None:
    """Return the state of a run whose heartbeat is young; None for another."""
    holder = read_holder(heartbeat)
    if holder is None or (age := now - holder.beat) >= DEAD_SECONDS:
        return None
    seconds = max(time.time() - holder.since, 0.0)
    start = datetime.fromtimestamp(holder.since).strftime("%d %b %H:%M")
    note = f"{holder}, for {duration(seconds)} since {start}"
    if age > 2 * BEAT_SECONDS:
        note += f", no sign of life for {age:.0f} s"
    return State(title, "running", note, seconds)


def _ended(title: str, outcome: dict[str, Any]) -> State:
    state = outcome.get("state", "left")
    if state == "done":  # with another config: its result is removed
        return State(title, "left")
    if state in ("failed", "stopped"):
        last = outcome["output"].splitlines()[-1:]
        note = ": ".join([outcome["reason"], *(line.strip() for line in last)])
        return State(title, state, textwrap.shorten(note, REASON_WIDTH, placeholder=" ..."))
    return State(title, state)

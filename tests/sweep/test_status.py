import json
import os
import time

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.status import GRID, status
from eakd_det.utils.errors import UserError
from eakd_det.utils.heartbeat import Heartbeat


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(out):
    """Writes a run's folder as its training leaves it."""

    def write(seed, outcome=None, result=False):
        folder = out / "KD" / "a_b" / f"seed{seed}"
        folder.mkdir(parents=True)
        record = {"outcome": outcome} if outcome else {}
        (folder / "sweep.json").write_text(json.dumps(record))
        if result:
            (folder / "result.json").write_text("{}")
        return folder

    return write


def outcome(state, reason="", output="", seconds=0.0):
    return {"state": state, "reason": reason, "output": output, "seconds": seconds}


@pytest.fixture
def beat():
    """Starts the heartbeat of a folder."""
    beats = []

    def start(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beats.append(Heartbeat(str(path)))
        assert beats[-1].acquire(is_alone=True)

    yield start
    for each in beats:
        each.release()


def test_what_the_folders_say(out, run, beat, tmp_path):
    run(1, outcome("done", seconds=100.0), result=True)
    beat(run(2) / "running.json")
    run(3, outcome("failed", "exit code 1", "x.txt ends with\n    a\n    ValueError: no", 5.0))
    run(4, outcome("stopped", "killed by SIGKILL", "x.txt ends with\n    step 7", 5.0))
    run(5, outcome("stopped", "stopped"))
    teacher = {"folder": str(tmp_path / "teacher"), "outcome": "t.json"}
    beat(tmp_path / "teacher.running.json")
    grid = {
        "runs": [f"{method}/a_b/seed{s}" for method in ("KD", "DKD") for s in range(1, 6)],
        "teachers": {"Teacher T.yaml": teacher},
    }
    (out / GRID).write_text(json.dumps(grid))
    first, _, header, rule, *rows, _, last = status(str(out)).splitlines()
    assert first == "done 1, running 2, failed 1, left 7, time left 0:13:20"
    assert header.split() == ["Run", "State"] and set(rule) == {"-", " "}
    teacher, running, failed, killed, stopped = rows
    where = f"running  process {os.getpid()} on {os.uname().nodename}, for 0:00:0"
    assert teacher.startswith("Teacher T.yaml") and where in teacher
    assert running.startswith("KD/a_b seed 2") and where in running
    assert failed.endswith("failed   exit code 1: ValueError: no")
    assert killed.endswith("stopped  killed by SIGKILL: step 7")
    assert stopped.endswith("stopped  stopped")
    assert last == f"Output of a run: {out}/RUN/stdout.txt"


def test_a_run_that_does_not_beat(out, run, beat):
    """It may be waiting for its disk; after a minute its machine is dead."""
    path = run(1) / "running.json"
    beat(path)
    os.utime(path, (time.time() - 40,) * 2)
    text = status(str(out))
    assert text.startswith("done 0, running 1, failed 0, left 0\n")
    assert text.endswith(("no sign of life for 40 s", "no sign of life for 41 s"))
    os.utime(path, (time.time() - 61,) * 2)
    assert status(str(out)) == "done 0, running 0, failed 0, left 1"


def test_results_of_other_options_do_not_count(out, tmp_path):
    config = tmp_path / "Digits" / "Student.yaml"
    config.parent.mkdir()
    config.write_text("VERSION: 2\nDATASET:\n  NAME: digits\nMODEL:\n  NAME: resnet8\n")

    def planned(*options):
        return plan(Classifiers(), [str(config)], [1], str(out), list(options))

    (run,) = planned()
    run.folder.mkdir(parents=True)
    run.start()
    run.note(outcome("done", seconds=3.0))
    (run.folder / "result.json").write_text('{"top1": 80.0}')
    for runs in ([], [run]):
        assert status(str(out), runs) == "done 1, running 0, failed 0, left 0"
    assert status(str(out), planned("SOLVER.EPOCHS", "3")).startswith("done 0, running 0, failed 0")


def test_a_user_without_the_permission_to_write(out, run, beat, monkeypatch):
    beat(run(1) / "running.json")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    text = status(str(out))
    assert text.startswith("done 0, running 1, failed 0, left 0")
    assert text.endswith(
        f"{out} cannot be written (Permission denied): what runs is judged by the clock of this "
        "machine."
    )


def test_a_folder_without_a_sweep(out):
    with pytest.raises(UserError, match="out holds no sweep"):
        status(str(out))

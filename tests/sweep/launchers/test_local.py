"""Real processes of jobs on this machine; the sweep's own tests use this launcher, too."""

import contextlib
import os
import time

import pytest

from classification.runs import Classifiers
from eakd_det.sweep.grid import plan
from eakd_det.sweep.jobs import RunJob
from eakd_det.sweep.launchers import Local

BODY = """
import json, pathlib, sys, time
seed, folder = (sys.argv[sys.argv.index(key) + 1] for key in ("SEED", "OUTPUT_DIR"))
folder = pathlib.Path(folder)
(folder / "began").touch()
until = pathlib.Path("go")
while not until.exists():
    time.sleep(0.01)
if seed == "4":
    sys.exit(1)
result = {"top1": 80.0, "top5": 99.0, "best_top1": 80.0, "teacher_top1": None}
folder.joinpath("result.json").write_text(json.dumps(result))
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Five jobs, which end when there is a file "go"; the fourth one fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "KD.yaml").write_text("VERSION: 2\nDATASET:\n  NAME: digits\n")
    (tmp_path / "script.py").write_text(BODY)
    runs = plan(Classifiers(), ["KD.yaml"], [1, 2, 3, 4, 5], "out", [])
    return [RunJob(r.title, r, ["script.py", *r.arguments], os.getcwd()) for r in runs]


def began(job):
    return (job.folder / "began").exists()


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def local():
    with contextlib.closing(Local(2)) as launcher:
        yield launcher


def test_jobs_start_in_their_order(jobs, local, tmp_path):
    handles = local.submit(jobs[:3])
    wait_until(lambda: began(jobs[0]) and began(jobs[1]))
    assert [local.state(handle) for handle in handles] == ["running", "running", "queued"]
    assert [local.outcome(handle) for handle in handles] == [None] * 3 and not began(jobs[2])
    (tmp_path / "go").touch()
    wait_until(lambda: all(local.outcome(handle) for handle in handles))
    assert [local.outcome(handle).state for handle in handles] == ["done"] * 3


def test_jobs_wait_for_others_and_let_later_ones_pass(jobs, local, tmp_path):
    (first,) = local.submit(jobs[:1])
    (second,) = local.submit(jobs[1:2], after=[first])
    (third,) = local.submit(jobs[2:3])
    wait_until(lambda: began(jobs[0]) and began(jobs[2]))
    assert local.state(second) == "queued" and not began(jobs[1])
    (tmp_path / "go").touch()
    wait_until(lambda: all(local.outcome(handle) for handle in (first, second, third)))
    assert local.outcome(second).state == "done"


def test_after_a_failure_nothing_starts(jobs, local, tmp_path):
    (tmp_path / "go").touch()
    (failing,) = local.submit(jobs[3:4])
    (after,) = local.submit(jobs[4:], after=[failing])
    wait_until(lambda: local.outcome(failing))
    assert local.outcome(failing).state == "failed" and local.state(after) == "queued"


def test_cancel_ends_what_runs_and_what_waits(jobs, local, tmp_path):
    handles = local.submit(jobs[:3])
    wait_until(lambda: began(jobs[0]) and began(jobs[1]))
    local.cancel([handles[0], handles[2]])
    wait_until(lambda: local.outcome(handles[0]))
    assert [local.outcome(handles[i]).state for i in (0, 2)] == ["stopped", "stopped"]
    assert local.outcome(handles[1]) is None
    (tmp_path / "go").touch()
    wait_until(lambda: local.outcome(handles[1]))
    assert local.outcome(handles[1]).state == "done" and not began(jobs[2])


def test_an_error_of_a_thread_is_raised(jobs, local, monkeypatch):
    monkeypatch.setattr("eakd_det.sweep.processes.start", lambda *_, **how: 1 / 0)
    (handle,) = local.submit(jobs[:1])
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: local.outcome(handle))

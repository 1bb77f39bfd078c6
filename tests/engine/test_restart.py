import argparse
import json
import socket

import pytest

from eakd_det.engine import restart
from eakd_det.engine.distill import distill
from eakd_det.engine.restart import (
    changed_start,
    changed_step,
    check_shared,
    continued,
    describe_changes,
    is_restart,
    launch_identity,
    log_restart,
    record_launch,
)
from eakd_det.engine.run_record import record_start
from eakd_det.engine.train_step.step import DistillStep
from eakd_det.utils.errors import UserError
from eakd_det.utils.files import write_json


@pytest.fixture
def agent(monkeypatch):
    """A function that makes this process one of an agent of torchrun, by the agent's folder."""

    def start(folder, attempt=0):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"{folder}/attempt_{attempt}/0/error.json")

    return start


def _start(folder):
    record_start(str(folder), "cpu", resume=True)
    record_launch(str(folder))


def test_a_restart_is_a_start_by_the_same_agent(agent, tmp_path):
    agent("/tmp/torchelastic_a/x_1")
    assert launch_identity() == f"{socket.gethostname()}:/tmp/torchelastic_a/x_1"
    assert not is_restart(str(tmp_path))
    _start(tmp_path)
    agent("/tmp/torchelastic_a/x_1", attempt=1)
    assert is_restart(str(tmp_path))
    agent("/tmp/torchelastic_b/x_2")  # the same command and --rdzv-id, later
    assert not is_restart(str(tmp_path))


def test_without_torchrun_nothing_is_a_restart(monkeypatch, tmp_path):
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    _start(tmp_path)
    assert launch_identity() == ""
    assert not is_restart(str(tmp_path)) and not is_restart("")


def test_a_start_that_has_not_removed_the_earlier_run_is_not_continued(agent, tmp_path):
    agent("/tmp/a/x")
    record_start(str(tmp_path), "cpu", resume=False)  # and is killed before `record_launch`
    assert not is_restart(str(tmp_path))


def test_a_machine_that_joins_decides_once_it_is_connected(agent, monkeypatch, tmp_path):
    agent("/tmp/a/x")
    _start(tmp_path)
    agent("/tmp/b/x")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert is_restart(str(tmp_path))
    together = [("host:/tmp/b/x", []), (f"{socket.gethostname()}:/tmp/a/x", [])]
    recorded = json.loads((tmp_path / "run.json").read_text())["starts"][-1]["launch"]
    monkeypatch.setattr(restart, "_is_connected", lambda: True)
    monkeypatch.setattr(
        restart.comm, "all_gather", lambda mine: [(together[0][0], recorded), together[1]]
    )
    assert is_restart(str(tmp_path))
    monkeypatch.setattr(restart.comm, "all_gather", lambda mine: [(together[0][0], recorded)])
    assert not is_restart(str(tmp_path))


def test_a_restart_resumes_and_does_not_overwrite(agent, tmp_path, caplog):
    args = argparse.Namespace(resume=False, overwrite=True, opts=["SEED", "1"])
    agent("/tmp/a/x")
    assert continued(args, str(tmp_path)) is args
    _start(tmp_path)
    again = continued(args, str(tmp_path))
    assert (again.resume, again.overwrite, again.opts) == (True, False, args.opts)
    assert args.overwrite, "the flags of other folders stay"
    log_restart(str(tmp_path))
    assert "the run goes on at iteration 0: nothing is saved." in caplog.text
    (tmp_path / "last_checkpoint").touch()
    log_restart(str(tmp_path))
    assert "the run goes on from its newest checkpoint." in caplog.text
    caplog.clear()
    agent("/tmp/b/x")
    log_restart(str(tmp_path))
    assert not caplog.text


def test_a_detector_s_run_goes_on(agent, run_cfg, tmp_path, monkeypatch):
    run_cfg.SOLVER.CHECKPOINT_PERIOD, run_cfg.SOLVER.MAX_ITER = 1, 3
    run_cfg.DATASETS.TEST = run_cfg.DISTILL.METHODS = ()
    (tmp_path / "run.yaml").write_text(run_cfg.dump())
    steps, run_step = [], DistillStep.run_step

    def run_or_die(step):
        if len(steps) == 2:
            raise OSError("killed")
        steps.append(step.iter)
        run_step(step)

    monkeypatch.setattr(DistillStep, "run_step", run_or_die)
    agent("/tmp/a/x")
    with pytest.raises(OSError, match="killed"):
        distill(tmp_path / "run.yaml")
    agent("/tmp/b/x")
    with pytest.raises(UserError, match=r"holds a run: --resume continues it"):
        distill(tmp_path / "run.yaml")
    agent("/tmp/a/x", attempt=1)
    steps.clear()
    distill(tmp_path / "run.yaml")
    assert steps == [2]


def test_a_start_of_another_number_of_processes(tmp_path):
    folder = str(tmp_path)
    assert changed_start(folder, resume=True) is None
    for processes in (1, 2):
        write_json(tmp_path / "run.json", {"starts": [{"processes": processes}, {"processes": 1}]})
        assert changed_start(folder, resume=False) is None
        first = changed_start(folder, resume=True)
        assert first == (None if processes == 1 else {"processes": 2})
    begun = "The run began with 2 processes and has 1: "
    assert describe_changes(first, {"A": (1, 2), "B": (3, 3)}) == f"{begun}A is 2, not 1."
    assert describe_changes(first, {"A": (1, 1)}) == f"{begun}its settings stay."


def test_one_process_needs_no_shared_folder(tmp_path):
    check_shared(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("images", "processes", "micro_batches", "step"),
    [
        (16, 4, 8, (16, 2, 0.1)),
        (16, 1, 4, (16, 4, 0.1)),
        (16, 8, 8, (16, 1, 0.1)),
        (16, 16, 4, (16, 1, 0.1)),  # more processes than at first: smaller micro-batches
        (16, 3, 4, (15, 5, 0.1 * 0.9375)),  # 5 each, of 4 at most: 5 does not divide into fewer
        (24, 4, 3, (24, 1, 0.1)),  # the same rate to the last digit
        (24, 2, 3, (24, 2, 0.1)),
        (8, 5, 2, (5, 1, 0.1 * 0.625)),
    ],
)
def test_the_images_of_a_step_stay(images, processes, micro_batches, step):
    assert changed_step(images, 0.1, processes, micro_batches) == step


def test_a_folder_that_another_machine_does_not_see(call_code, tmp_path):
    """Two processes, of which each has a folder of its own under the same name."""
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    code, out, err = call_code(TWO_FOLDERS, ranks=2)
    assert code == 0, err
    assert out.count("run of ") == 2 and out.count("(the first process) is not seen by") == 2
    assert "(process 1), whose processes could not read its checkpoints" in out
    assert not list(tmp_path.glob("*/run/.shared*"))


TWO_FOLDERS = """
import os
from eakd_det.engine import restart
from eakd_det.engine.process_group import connect_torchrun, time_limit
from eakd_det.utils.errors import UserError
restart.SHARED_SECONDS = 0
connect_torchrun(is_on_gpu=False, timeout=time_limit(60))
restart.check_shared("shared")
os.chdir(os.environ["RANK"])
try:
    restart.check_shared("run")
except UserError as error:
    print(error)
"""


def test_more_processes_than_images():
    with pytest.raises(UserError, match="3 processes cannot share the 2 examples of a step"):
        changed_step(2, 0.5, 3, 1)

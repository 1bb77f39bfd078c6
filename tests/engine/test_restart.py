import json
import socket

import pytest

from eakd_det.engine import restart
from eakd_det.engine.restart import (
    check_shared,
    is_restart,
    launch_identity,
    micro_batch_plan,
    record_launch,
)
from eakd_det.engine.run_record import record_start
from eakd_det.utils.errors import UserError


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


def test_one_process_needs_no_shared_folder(tmp_path):
    check_shared(str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("images", "processes", "first", "plan"),
    [
        (16, 4, (8, 1), (16, 2)),
        (16, 1, (2, 2), (16, 4)),
        (16, 8, (4, 2), (16, 1)),  # more processes than at first: smaller micro-batches
        (16, 16, (4, 1), (16, 1)),
        (16, 3, (4, 1), (15, 5)),  # 5 each, of 4 at most: 5 does not divide into fewer
        (24, 4, (3, 1), (24, 1)),
        (24, 2, (3, 1), (24, 2)),
        (6, 5, (2, 1), (5, 1)),
    ],
)
def test_the_images_of_a_step_stay(images, processes, first, plan):
    options = dict(zip(("first_processes", "first_accumulate"), first, strict=True))
    assert micro_batch_plan(images, processes, **options) == plan


def test_more_processes_than_images():
    with pytest.raises(UserError, match="3 processes cannot share the 2 images of a step"):
        micro_batch_plan(2, 3, first_processes=1, first_accumulate=1)

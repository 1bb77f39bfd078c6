import json
import shlex
import subprocess
import sys

import pytest
import torch
from torch import nn

from eakd_det.engine import run_record
from eakd_det.engine.run_record import command, record_parameters, record_start, versions


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def noted(folder):
    return json.loads((folder / "run.json").read_text())


def test_a_start(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tools/train.py", "--flag", "DATASETS.TEST", "('a b',)"])
    record_start(str(folder), "cpu", resume=False)
    (start,) = noted(folder)["starts"]
    assert shlex.split(start["command"]) == ["python", *sys.argv]
    assert (start["processes"], start["device"]) == (1, run_record.processor())
    assert start["versions"]["torch"] == torch.__version__
    assert start["started"].startswith("20") and start["started"][19] in "+-"
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_resumed_run_keeps_its_starts_and_a_new_one_does_not(folder):
    for resume, number in ((True, 1), (True, 2), (False, 1)):
        record_start(str(folder), "cpu", resume=resume)
        assert len(noted(folder)["starts"]) == number
        assert "parameters" not in noted(folder) or resume
        record_parameters(str(folder), nn.Linear(3, 2))
    assert noted(folder)["parameters"] == 8


def test_parameters_are_those_of_the_student_alone(folder):
    model = nn.Module()
    model.body, model.adapters = nn.Linear(3, 2), nn.ModuleDict({"x": nn.Linear(9, 9)})
    model.register_buffer("mean", torch.zeros(7))
    record_parameters(str(folder), model)
    assert noted(folder) == {"parameters": 8}


def test_other_processes_and_runs_without_a_folder_write_nothing(folder, monkeypatch):
    record_start("", "cpu", resume=False)
    monkeypatch.setattr(run_record.comm, "is_main_process", lambda: False)
    record_start(str(folder), "cpu", resume=False)
    record_parameters(str(folder), nn.Linear(3, 2))
    assert not folder.exists()


def test_torchruns_command_is_rebuilt(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tools/train.py", "--resume"])
    for name, value in [("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "4"), ("GROUP_WORLD_SIZE", "1")]:
        monkeypatch.setenv(name, value)
    assert command() == "torchrun --nproc-per-node 4 tools/train.py --resume"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert command() == "torchrun --nproc-per-node 4 --nnodes 2 tools/train.py --resume"


def test_commits(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        call = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    assert run_record._commit(package) is None  # a stranger's checkout
    git("add", ".")
    git("commit", "-m", "a")
    commit = git("rev-parse", "HEAD")[:12]
    assert run_record._commit(package) == commit
    (package / "__init__.py").write_text("changed = 1\n")
    assert run_record._commit(package) == f"{commit}-dirty"


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setattr(run_record.shutil, "which", lambda name: None)
    assert "commit" not in versions() and "detectron2" in versions()

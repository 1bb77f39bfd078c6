"""Tools of a checkout, started by a Python without torch: that of the tests, without packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    *("tools/demo.py", "tools/train_net.py", "eakd_det/__init__.py"),
    *(f"eakd_det/utils/{x}.py" for x in ("__init__", "before_torch", "command_line")),
    *(f"eakd_det/utils/{x}.py" for x in ("environment", "errors")),
]


@pytest.fixture
def start(tmp_path):
    """A function that starts a tool of a checkout, and returns the ended process."""
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def start(tool, *arguments, python=(sys.executable, "-S")):
        command = [*python, str(tmp_path / "tools" / tool), *arguments]
        options = {"capture_output": True, "text": True, "env": environment, "cwd": "/"}
        return subprocess.run(command, **options)

    return start


@pytest.fixture
def venv(tmp_path):
    """The checkout's .venv, whose Python prints its arguments."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "restarted: $*"\nexit 3\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / "setup-complete").touch()
    return python


def test_the_demo_continues_in_the_venv(start, venv, tmp_path):
    done = start("demo.py", "--output-dir", "a b")
    assert done.stdout == f"restarted: {tmp_path}/tools/demo.py --output-dir a b\n"
    assert done.returncode == 3 and done.stderr == ""


def test_without_a_venv_the_set_up_is_named(start, tmp_path):
    done = start("demo.py")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {sys.executable} (Python 3.")
    assert f"has no torch and no detectron2: run {tmp_path}/tools/setup_env" in done.stderr
    assert done.stderr.endswith(f"then start this with {tmp_path}/.venv/bin/python\n")
    assert done.stderr.count("\n") == 1


def test_a_venv_that_is_not_complete_is_not_used(start, venv, tmp_path):
    (tmp_path / ".venv" / "setup-complete").unlink()
    assert "setup_environment.py" in start("demo.py").stderr


def test_other_tools_name_the_python(start, venv):
    done = start("train_net.py", "--config-file", "x.yaml")
    assert done.returncode == 1
    assert done.stderr.endswith(f"has no torch and no detectron2: start this with {venv}\n")


def test_help_and_mistakes_need_no_packages(start):
    assert start("demo.py", "--help").returncode == 0
    assert "unrecognized arguments: --rezume" in start("train_net.py", "--rezume").stderr

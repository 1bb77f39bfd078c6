"""The Dockerfile's commands, as far as they can be checked without building an image."""

import re
import runpy
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text().splitlines()
IGNORED = (ROOT / ".dockerignore").read_text().split()


def words_of(instruction):
    return [shlex.split(line)[1:] for line in LINES if line.startswith(instruction + " ")]


def test_the_python_is_one_that_the_set_up_takes():
    setup = runpy.run_path(str(ROOT / "tools" / "setup_environment.py"))
    ((image,),) = words_of("FROM")
    version = tuple(map(int, re.fullmatch(r"python:(\d+)\.(\d+)-slim", image).groups()))
    assert setup["OLDEST"] <= version <= setup["NEWEST"]


def test_what_is_copied_and_run_exists():
    for source, _ in words_of("COPY"):
        assert (ROOT / source).exists()
    files = [word for words in words_of("RUN") for word in words if re.search(r"\.(py|txt)$", word)]
    assert files == ["requirements/torch.txt", "tools/setup_environment.py"]
    assert all((ROOT / file).exists() for file in files)


def test_git_and_the_image_ignore_the_same_folders():
    of_git = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    folders = {name for name in of_git if "*" not in name and name}
    assert folders <= {name.removeprefix("**/") for name in IGNORED}
    assert "requirements" not in IGNORED and "tools" not in IGNORED

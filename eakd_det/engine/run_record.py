"""run.json of an output folder: the commands that made the run, their versions and device."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import detectron2
import torch
import torchvision
from detectron2.utils import comm
from torch import nn

from eakd_det import __version__
from eakd_det.checkpoint.checkpointer import ADAPTERS
from eakd_det.utils.files import read_json, write_json

NAME = "run.json"


def record_start(output_dir: str, device: str, *, resume: bool, accumulate: int = 1) -> None:
    """Record the start of a run, or that it is resumed, from the main process.

    Args:
        output_dir: of the run; created if missing. Empty: nothing is recorded.
        device: of the model, "cpu" or "cuda".
        resume: keep the records of earlier starts.
        accumulate: micro-batches of a step on each process.
    """
    if not output_dir or not comm.is_main_process():
        return
    path = os.path.join(output_dir, NAME)
    recorded = read_record(output_dir) if resume else {}
    start = {
        "command": command(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processes": comm.get_world_size(),
        "accumulate": accumulate,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else processor(),
        "versions": versions(),
    }
    write_json(path, {**recorded, "starts": [*recorded.get("starts", []), start]})


def record_parameters(output_dir: str, student: nn.Module) -> None:
    """Record the number of a student's parameters, without modules that train beside it."""
    if output_dir and comm.is_main_process():
        parameters = student.named_parameters()
        number = sum(p.numel() for name, p in parameters if not name.startswith(ADAPTERS))
        add_to_record(output_dir, parameters=number)


def read_record(output_dir: str) -> dict[str, Any]:
    """Return the content of a folder's run.json, empty without one.

    "starts" are the run's starts, the oldest first; see `record_start` and `record_launch`.
    """
    return read_json(os.path.join(output_dir, NAME)) if output_dir else {}


def add_to_record(output_dir: str, **values: Any) -> None:
    """Set values in run.json."""
    write_json(os.path.join(output_dir, NAME), {**read_record(output_dir), **values})


def command() -> str:
    """Return the command line of this process for a shell; torchrun's options are reconstructed."""
    launcher = ["python"]
    if "LOCAL_RANK" in os.environ:
        launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]
        machines = os.environ["GROUP_WORLD_SIZE"]
        launcher += ["--nnodes", machines] if machines != "1" else []
    return shlex.join([*launcher, *sys.argv])


def versions() -> dict[str, str]:
    """Return the versions of the packages that compute; "commit" if this is a git checkout."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "detectron2": detectron2.__version__,
        "eakd-det": __version__,
    }
    commit = _commit(Path(__file__).parent)
    return {**found, "commit": commit} if commit else found


def _commit(folder: Path) -> str | None:
    """Return the commit of the git checkout of `folder`, with "-dirty" if files have changed."""
    git = shutil.which("git")
    if git is None:
        return None
    # An environment may lie inside the checkout of another project.
    is_part = ["ls-files", "--error-unmatch", "__init__.py"]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    for arguments in (is_part, describe):
        call = [git, "-C", str(folder), *arguments]
        result = subprocess.run(call, capture_output=True, text=True)
        if result.returncode:
            return None
    return result.stdout.strip()


def processor() -> str:
    """Return the name of the CPU, on Linux that of /proc/cpuinfo."""
    path = "/proc/cpuinfo"
    if os.path.exists(path):
        with open(path) as f:
            names = [line.partition(":")[2].strip() for line in f if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()

"""run.json of an output folder: the commands that made the run, their versions and device."""

import json
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
from eakd_det.utils.files import write_atomically

NAME = "run.json"


def record_start(output_dir: str, device: str, *, resume: bool) -> None:
    """Note that this process starts a run, or goes on with it; the main process alone writes.

    Args:
        output_dir: of the run; it is made if need be. Empty: nothing is noted.
        device: of the model, "cpu" or "cuda".
        resume: keep what earlier starts have noted.
    """
    if not output_dir or not comm.is_main_process():
        return
    noted = _read(output_dir) if resume else {}
    start = {
        "command": command(),
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "processes": comm.get_world_size(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else processor(),
        "versions": versions(),
    }
    _write(output_dir, {**noted, "starts": [*noted.get("starts", []), start]})


def record_parameters(output_dir: str, student: nn.Module) -> None:
    """Note how many parameters a student has, without those of what only helps it to learn."""
    if output_dir and comm.is_main_process():
        parameters = student.named_parameters()
        number = sum(p.numel() for name, p in parameters if not name.startswith(ADAPTERS))
        _write(output_dir, {**_read(output_dir), "parameters": number})


def command() -> str:
    """The command line of this process, as a shell reads it; torchrun's options are rebuilt."""
    launcher = ["python"]
    if "LOCAL_RANK" in os.environ:
        launcher = ["torchrun", "--nproc-per-node", os.environ["LOCAL_WORLD_SIZE"]]
        machines = os.environ["GROUP_WORLD_SIZE"]
        launcher += ["--nnodes", machines] if machines != "1" else []
    return shlex.join([*launcher, *sys.argv])


def versions() -> dict[str, str]:
    """Of what computes; "commit" where this package lies in a git checkout."""
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
    """Of the checkout that `folder` is part of, "-dirty" behind it if files have changed since."""
    git = shutil.which("git")
    if git is None:
        return None
    # An environment inside a stranger's checkout is not part of it.
    is_part = ["ls-files", "--error-unmatch", "__init__.py"]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    for arguments in (is_part, describe):
        call = [git, "-C", str(folder), *arguments]
        result = subprocess.run(call, capture_output=True, text=True)
        if result.returncode:
            return None
    return result.stdout.strip()


def processor() -> str:
    """The name of the CPU, as Linux tells it."""
    path = "/proc/cpuinfo"
    if os.path.exists(path):
        with open(path) as f:
            names = [line.partition(":")[2].strip() for line in f if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _read(output_dir: str) -> dict[str, Any]:
    path = os.path.join(output_dir, NAME)
    if not os.path.exists(path):
        return {}
    with open(path) as f:
        return json.load(f)


def _write(output_dir: str, noted: dict[str, Any]) -> None:
    os.makedirs(output_dir, exist_ok=True)
    with write_atomically(os.path.join(output_dir, NAME)) as f:
        json.dump(noted, f, indent=2)

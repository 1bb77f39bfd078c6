"""NVIDIA's driver and GPUs, and whether the installed torch fits them, without importing torch.

`python -m eakd_det.utils.nvidia` prints why torch cannot use the GPU, if it cannot; the set-up does
so. It needs the standard library alone.
"""

import functools
import importlib.util
import platform
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PROC = Path("/proc/driver/nvidia")  # of Linux
SECONDS = 20  # that nvidia-smi has to answer
# Major release of CUDA -> oldest major release of the driver (NVIDIA's "Minor Version
# Compatibility"; each driver also runs programs of older releases).
OLDEST_DRIVERS = {13: 580, 12: 525, 11: 450}
# Major release of CUDA -> newest torch, and its torchvision, that the package index has for it. The
# first is the pair of requirements/torch.txt; torch 2.11 was the first release for CUDA 13.
WHEELS = {13: ("2.14.1", "0.29.1"), 12: ("2.10.0", "0.25.0")}
CHOICE = "https://pytorch.org/get-started/locally/"


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU of a machine.

    Attributes:
        name: of the GPU.
        driver: its version.
        cuda: newest major release of CUDA that the driver supports; 0 if that is older than 11.
        fault: why nvidia-smi fails, in its own words; the others are then empty.
    """

    name: str = ""
    driver: str = ""
    cuda: int = 0
    fault: str = ""

    def __str__(self) -> str:
        supported = f"CUDA {self.cuda}" if self.cuda else "no CUDA 11 or newer"
        return f"{self.name} with driver {self.driver} ({supported})"


@dataclass(frozen=True)
class TorchBuild:
    """Version of the installed torch, and the major release of CUDA that it is built for, or 0."""

    version: str
    cuda: int


@functools.cache
def find_gpu() -> Gpu | None:
    """Return the machine's first NVIDIA GPU, or None if there is no sign of one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return _gpu_of_linux()
    try:
        outputs = [
            subprocess.run([program, *flags], capture_output=True, text=True, timeout=SECONDS)
            for flags in ([], ["-L"])
        ]
    except subprocess.TimeoutExpired:
        return Gpu(fault=f"it does not answer within {SECONDS} seconds")
    table, listed = (done.stdout for done in outputs)
    driver = re.search(r"(?:Driver|KMD) Version: *([\d.]+)", table)  # KMD in recent releases
    name = re.search(r"^GPU \d+: (.+?)(?: \(UUID|$)", listed, re.MULTILINE)
    if driver is None or name is None:
        words = "".join(done.stdout + done.stderr for done in outputs).split("\n")
        return Gpu(fault=next((line.strip() for line in words if line.strip()), "no output"))
    cuda = re.search(r"CUDA(?: UMD)? Version: *(\d+)", table)
    return Gpu(name[1], driver[1], int(cuda[1]) if cuda else _newest_cuda(driver[1]))


def _gpu_of_linux() -> Gpu | None:
    """Return the GPU as the kernel module describes it: a container may lack nvidia-smi."""
    files = sorted(PROC.glob("gpus/*/information"))
    if not files:
        return None
    name = re.search(r"^Model:\s*(.+?)\s*$", files[0].read_text(), re.MULTILINE)
    version = re.search(r"\s(\d{3}\.\d+(?:\.\d+)?)\s", (PROC / "version").read_text())
    if name is None or version is None:
        return Gpu(fault=f"there is none, and {PROC} is in an unknown format")
    return Gpu(name[1], version[1], _newest_cuda(version[1]))


def _newest_cuda(driver: str) -> int:
    major = int(driver.partition(".")[0])
    return max((cuda for cuda, oldest in OLDEST_DRIVERS.items() if major >= oldest), default=0)


def torch_build() -> TorchBuild | None:
    """Return the build of this Python's torch, from its version.py; None if there is no torch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    values = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return TorchBuild(values["__version__"], int((values["cuda"] or "0").partition(".")[0]))


def obstacle(gpu: Gpu, build: TorchBuild) -> str:
    """Return why torch cannot use the GPU, and what to do, in a sentence; "" if nothing shows."""
    if gpu.fault:
        return (
            f'nvidia-smi fails ("{gpu.fault}"): if this machine has an NVIDIA GPU, restart it, or '
            "install NVIDIA's driver anew"
        )
    if not build.cuda:
        return f"torch {build.version} is a build without CUDA, and here is {gpu}: {_remedy(gpu)}"
    if build.cuda > gpu.cuda:
        oldest = OLDEST_DRIVERS.get(build.cuda)
        needed = f"CUDA {build.cuda}" + (f" (driver {oldest} or newer)" if oldest else "")
        return f"torch {build.version} needs {needed}, and here is {gpu}: {_remedy(gpu, build)}"
    return ""


def _remedy(gpu: Gpu, build: TorchBuild | None = None) -> str:
    """Return what to do: the pip command of the wheel that fits the driver, where there is one.

    Args:
        build: if it is made for CUDA; it makes way for another version by itself.
    """
    fitting = max((cuda for cuda in WHEELS if cuda <= gpu.cuda), default=0)
    if not fitting:
        return f"update the driver to {OLDEST_DRIVERS[max(WHEELS)]} or newer"
    update = "update the driver, or run " if build else "run "
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        # The index has wheels without CUDA for Windows.
        return f"{update}the command for CUDA {fitting} that {CHOICE} gives, with {sys.executable}"
    install, remove = (f"{sys.executable} -m pip {words}" for words in ("install", "uninstall -y"))
    if not any(metadata.distributions(name="pip")):  # find_spec of pip changes distutils
        install, remove = (
            f"uv pip {x} --python {sys.executable}" for x in ("install", "uninstall")
        )
    torch, torchvision = WHEELS[fitting]
    command = f"{install} torch=={torch} torchvision=={torchvision}"
    return update + (command if build else f"{remove} torch torchvision && {command}")


def main() -> None:
    """Print the obstacle, if there is one."""
    gpu, build = find_gpu(), torch_build()
    text = obstacle(gpu, build) if gpu and build else ""
    if text:
        print(text)


if __name__ == "__main__":
    main()

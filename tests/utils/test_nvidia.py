"""eakd_det.utils.nvidia, with scripts in place of nvidia-smi and of torch's version.py."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eakd_det.utils import nvidia
from eakd_det.utils.nvidia import WHEELS, Gpu, TorchBuild, find_gpu, obstacle, torch_build

ROOT = Path(__file__).parents[2]
# The heads of the table in older and in recent releases.
OLD = "| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2     |"
NEW = "| NVIDIA-SMI 595.58.03    KMD Version: 595.58.03    CUDA UMD Version: 13.2    |"
LIST = "GPU 0: NVIDIA GeForce RTX 3090 (UUID: GPU-1)\nGPU 1: NVIDIA T4 (UUID: GPU-2)"
OF_12 = Gpu("NVIDIA T4", "535.104.05", 12)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A function that puts a script nvidia-smi on the path: its outputs, and its exit code."""

    def put(table, listed=LIST, code=0):
        script = tmp_path / "bin" / "nvidia-smi"
        script.parent.mkdir()
        table, listed = shlex.quote(table), shlex.quote(listed)
        script.write_text(
            f'#!/bin/sh\nif [ "$1" = -L ]; then echo {listed}; else echo {table}; fi\nexit {code}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent), prepend=":")

    find_gpu.cache_clear()
    yield put
    find_gpu.cache_clear()


@pytest.fixture(autouse=True)
def on_linux(monkeypatch):
    monkeypatch.setattr(nvidia.platform, "system", lambda: "Linux")
    monkeypatch.setattr(nvidia.platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize(
    ("table", "driver", "cuda"),
    [
        (OLD, "535.104.05", 12),
        (NEW, "595.58.03", 13),
        ("Driver Version: 470.256.02   CUDA Version: N/A", "470.256.02", 11),
    ],
)
def test_the_gpu_of_nvidia_smi(nvidia_smi, table, driver, cuda):
    nvidia_smi(table)
    assert find_gpu() == Gpu("NVIDIA GeForce RTX 3090", driver, cuda)


def test_a_failure_of_nvidia_smi_is_quoted(nvidia_smi):
    fault = "Failed to initialize NVML: Driver/library version mismatch"
    nvidia_smi(fault, fault, code=18)
    assert find_gpu() == Gpu(fault=fault)
    text = obstacle(find_gpu(), TorchBuild("2.14.1+cu130", 13))
    assert fault in text and "restart it" in text and "pip" not in text


def test_nvidia_smi_that_hangs(nvidia_smi, monkeypatch):
    nvidia_smi("$(sleep 5)")
    (script,) = Path(nvidia.shutil.which("nvidia-smi")).parent.iterdir()
    script.write_text("#!/bin/sh\nexec sleep 5\n")
    monkeypatch.setattr(nvidia, "SECONDS", 0.1)
    assert "does not answer" in find_gpu().fault


@pytest.mark.parametrize(
    "module",
    [
        "NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build  (dvs)",
    ],
)
def test_the_gpu_of_the_kernel_module(tmp_path, monkeypatch, nvidia_smi, module):
    monkeypatch.setattr(nvidia, "PROC", tmp_path / "nvidia")
    monkeypatch.setattr(nvidia.shutil, "which", lambda name: None)
    assert find_gpu() is None
    find_gpu.cache_clear()
    information = tmp_path / "nvidia" / "gpus" / "0000:01:00.0" / "information"
    information.parent.mkdir(parents=True)
    information.write_text("Model: \t\t NVIDIA T4\nIRQ:   \t\t 37\n")
    (tmp_path / "nvidia" / "version").write_text(f"NVRM version: {module}\nGCC version:  12\n")
    assert find_gpu() == OF_12


def test_a_driver_that_is_too_old():
    text = obstacle(OF_12, TorchBuild("2.14.1+cu130", 13))
    assert text == (
        "torch 2.14.1+cu130 needs CUDA 13 (driver 580 or newer), and here is NVIDIA T4 with driver "
        f"535.104.05 (CUDA 12): update the driver, or run {sys.executable} -m pip install "
        "torch==2.10.0 torchvision==0.25.0"
    )


def test_a_driver_without_a_wheel():
    text = obstacle(Gpu("K80", "470.256.02", 11), TorchBuild("2.10.0+cu128", 12))
    assert "(driver 525 or newer)" in text and text.endswith(": update the driver to 580 or newer")


def test_a_build_without_cuda():
    text = obstacle(Gpu("H200", "580.65.06", 13), TorchBuild("2.14.1+cpu", 0))
    pip = f"{sys.executable} -m pip"
    assert text == (
        "torch 2.14.1+cpu is a build without CUDA, and here is H200 with driver 580.65.06 (CUDA "
        f"13): run {pip} uninstall -y torch torchvision && "
        f"{pip} install torch==2.14.1 torchvision==0.29.1"
    )


def test_an_environment_without_pip(monkeypatch):
    monkeypatch.setattr(nvidia.metadata, "distributions", lambda name: [])
    text = obstacle(OF_12, TorchBuild("2.14.1+cu130", 13))
    assert f"run uv pip install --python {sys.executable} torch==2.10.0" in text


def test_other_systems_are_sent_to_the_page_of_wheels(monkeypatch):
    monkeypatch.setattr(nvidia.platform, "system", lambda: "Windows")
    text = obstacle(OF_12, TorchBuild("2.14.1+cpu", 0))
    assert f"run the command for CUDA 12 that {nvidia.CHOICE} gives" in text


def test_what_fits_is_no_obstacle():
    assert obstacle(OF_12, TorchBuild("2.10.0+cu128", 12)) == ""
    assert obstacle(Gpu("H200", "580.65.06", 13), TorchBuild("2.10.0+cu128", 12)) == ""


def test_the_newest_wheels_are_those_of_the_set_up():
    lines = (ROOT / "requirements" / "torch.txt").read_text().splitlines()
    torch, torchvision = WHEELS[max(WHEELS)]
    assert lines[-2:] == [f"torch=={torch}", f"torchvision=={torchvision}"]


def test_the_build_is_read_and_not_imported(tmp_path, monkeypatch):
    import torch

    major = int((torch.version.cuda or "0").partition(".")[0])
    assert torch_build() == TorchBuild(torch.__version__, major)
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError")
    (package / "version.py").write_text("__version__ = '2.6.0+cpu'\ncuda = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    assert torch_build() == TorchBuild("2.6.0+cpu", 0)


def test_the_command(nvidia_smi):
    """The set-up imports neither torch nor Detectron2 for its report on GPUs."""
    nvidia_smi(OLD.replace("12.2", "10.1"))
    check = "import sys; from eakd_det.utils import nvidia; nvidia.main()\n"
    check += "assert not {'torch', 'detectron2', 'numpy'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "RTX 3090 with driver 535.104.05 (CUDA 10)" in done.stdout

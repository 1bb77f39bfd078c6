"""The set-up's decisions: what is missing, what is kept, where files go. No network, no pip."""

import importlib.util
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(root):
    """The module tools/setup_environment.py of a checkout; tools/ is no package."""
    path = root / "tools" / "setup_environment.py"
    spec = importlib.util.spec_from_file_location("setup_environment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path):
    """A folder with a copy of the files that the set-up reads."""
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "requirements", root / "requirements")
    (root / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup_environment.py", root / "tools")
    shutil.copy(ROOT / "setup.py", root)
    for name in ("__init__.py", "utils/__init__.py", "utils/nvidia.py"):
        (root / "eakd_det" / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "eakd_det" / name, root / "eakd_det" / name)
    return root


@pytest.fixture
def setup(checkout):
    return load(checkout)


def provide_all_but(monkeypatch, setup, *absent):
    monkeypatch.setattr(setup, "has", lambda module: module not in absent)


@pytest.fixture
def calls(monkeypatch, setup):
    """Records instead of doing: ("pip", requirements), ("detectron2",), ("run", command)."""
    seen = []

    def pip_install(*arguments):
        if arguments[0] == "-c":
            held = Path(arguments[1]).read_text().splitlines()
            seen.append(("pip", list(arguments[2:]), held))
        else:
            seen.append(("pip", list(arguments)))

    monkeypatch.setattr(setup, "pip_install", pip_install)
    monkeypatch.setattr(setup, "install_detectron2", lambda: seen.append(("detectron2",)))
    monkeypatch.setattr(setup, "run", lambda command: seen.append(("run", command)))
    return seen


@pytest.mark.parametrize(
    ("version", "with_torch", "refused"),
    [
        ((3, 9), False, True),
        ((3, 9), True, True),
        ((3, 10), False, False),
        ((3, 11), False, False),
        ((3, 14), False, False),
        ((3, 15), False, True),
        ((3, 15), True, False),
        ((4, 0), False, True),
    ],
)
def test_refusal_names_the_version(setup, version, with_torch, refused):
    why = setup.refusal(version, with_torch)
    assert (why is not None) == refused
    assert why is None or "Python {}.{} ".format(*version) in why


def test_requirements_have_no_comments_and_no_detectron2(setup):
    base = setup.requirements("base")
    assert "torch>=2.6" in base and "iopath<0.1.10" in base
    assert not any("#" in line or "detectron2" in line for line in base)
    assert [setup.name_of(line) for line in setup.requirements("torch")] == ["torch", "torchvision"]


def test_detectron2_is_pinned_by_hash(setup):
    pin = " ".join(setup.requirements("detectron2"))
    assert "==" in pin and "--hash=sha256:" in pin


@pytest.mark.parametrize(
    ("requirement", "name"),
    [("torch>=2.6", "torch"), ("setuptools>=70.1,<81", "setuptools"), ("hydra-core", "hydra-core")],
)
def test_name_of(setup, requirement, name):
    assert setup.name_of(requirement) == name


def test_is_met_looks_at_this_interpreter(setup):
    assert setup.is_met("pytest>=999")  # whatever version is here is kept
    assert setup.is_met("pillow") and setup.is_met("scikit-learn")
    assert not setup.is_met("no-such-package-anywhere")
    lines = setup.requirements("base", "analysis", "test")
    assert [line for line in lines if not setup.is_met(line)] == []


def test_an_empty_folder_is_no_package(setup, tmp_path, monkeypatch):
    (tmp_path / "left_over").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not setup.has("left_over")
    (tmp_path / "left_over" / "__init__.py").touch()
    assert setup.has("left_over")


def test_kept_versions_pins_what_is_here(setup):
    version = metadata.version("pytest")
    assert setup.kept_versions(["pytest>=1", "no-such-package"]) == [f"pytest=={version}"]


def test_nothing_missing_calls_nothing(setup, monkeypatch, calls):
    provide_all_but(monkeypatch, setup)
    assert not setup.install(keep=True)
    assert calls == []


def test_only_the_missing_is_installed_and_the_rest_is_held(setup, monkeypatch, calls):
    provide_all_but(monkeypatch, setup, "yacs", "hydra", "pkg_resources")
    setup.install(keep=True)
    (_, installed, held), (last, _) = calls
    assert installed == ["hydra-core", "yacs", "setuptools>=70.1,<81"]
    assert f"numpy=={metadata.version('numpy')}" in held
    assert not any(line.startswith(("yacs", "hydra", "setuptools")) for line in held)
    assert last == "run"  # the import that proves it


def test_missing_torch_is_installed_as_the_pinned_pair(setup, monkeypatch, calls):
    provide_all_but(monkeypatch, setup, "torch", "torchvision")
    setup.install(keep=True)
    assert calls[0][1] == [*setup.requirements("torch"), "torch>=2.6", "torchvision"]


def test_missing_torchvision_follows_the_torch_that_is_here(setup, monkeypatch, calls):
    provide_all_but(monkeypatch, setup, "torchvision")
    setup.install(keep=True)
    _, installed, held = calls[0]
    assert installed == ["torchvision"]
    assert f"torch=={metadata.version('torch')}" in held


def test_missing_detectron2_and_package_alone(setup, monkeypatch, calls):
    provide_all_but(monkeypatch, setup, "detectron2", "eakd_det")
    setup.install(keep=True)
    assert [call[0] for call in calls] == ["detectron2", "pip", "run"]
    words = calls[1][1]  # between them --no-build-isolation, where setuptools is new enough
    assert words[0] == "--no-deps" and words[-2:] == ["-e", "."]


def test_fresh_installs_the_whole_pinned_set(setup, monkeypatch, calls):
    provide_all_but(monkeypatch, setup)
    setup.install(keep=False)
    _, installed, held = calls[0]
    assert installed == setup.requirements("torch", "base", "analysis", "test")
    assert held == []
    assert ("detectron2",) not in calls  # the one that is here stays


def test_an_environment_without_pip_uses_its_base_interpreters(setup, monkeypatch):
    commands = []
    monkeypatch.setattr(setup, "run", commands.append)
    provide_all_but(monkeypatch, setup, "pip")
    setup.pip_install("x")
    provide_all_but(monkeypatch, setup)
    setup.pip_install("x")
    assert commands[0][0] == sys._base_executable
    assert commands[0][3:5] == ["--python", sys.executable]
    assert commands[1][:3] == [sys.executable, "-m", "pip"] and "--python" not in commands[1]


def lay_wheel(folder):
    """What pip leaves of Detectron2's wheel in a folder, in small."""
    names = ["detectron2/__init__.py", "tools/__init__.py", "tools/deep/train.py"]
    for name in [*names, "detectron2_wheel-0.dist-info/RECORD"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    record = folder / "detectron2_wheel-0.dist-info" / "RECORD"
    record.write_text("".join(f"{name},sha256=x,0\n" for name in [*names, "toolshed/a.py"]))


def test_drop_package_cleans_folder_and_record(setup, tmp_path):
    lay_wheel(tmp_path)
    setup.drop_package(tmp_path, "tools")
    assert not (tmp_path / "tools").exists() and (tmp_path / "detectron2").is_dir()
    record = (tmp_path / "detectron2_wheel-0.dist-info" / "RECORD").read_text()
    assert record == "detectron2/__init__.py,sha256=x,0\ntoolshed/a.py,sha256=x,0\n"


def test_install_detectron2_leaves_others_tools_alone(setup, tmp_path, monkeypatch):
    purelib = tmp_path / "site-packages"
    for name in ("tools/__init__.py", "detectron2/stale.py"):
        (purelib / name).parent.mkdir(parents=True)
        (purelib / name).write_text("mine")
    monkeypatch.setattr(setup.sysconfig, "get_path", lambda name: str(purelib))
    monkeypatch.setattr(
        setup, "pip_install", lambda *words: lay_wheel(Path(words[words.index("--target") + 1]))
    )
    setup.install_detectron2()
    assert sorted(path.name for path in purelib.iterdir()) == [
        "detectron2",
        "detectron2_wheel-0.dist-info",
        "tools",
    ]
    assert [path.name for path in (purelib / "tools").iterdir()] == ["__init__.py"]
    assert (purelib / "tools" / "__init__.py").read_text() == "mine"
    assert [path.name for path in (purelib / "detectron2").iterdir()] == ["__init__.py"]


@pytest.fixture
def made(monkeypatch, setup):
    """fill_venv without a real .venv or installation: records the actions it starts."""
    seen = []

    def make_venv():
        setup.VENV_PYTHON.parent.mkdir(parents=True, exist_ok=True)
        setup.VENV_PYTHON.touch()
        (setup.VENV / setup.PACKAGES.replace("*", "3")).mkdir(parents=True, exist_ok=True)
        shared = "true" if setup.has("detectron2") else "false"
        (setup.VENV / "pyvenv.cfg").write_text(f"include-system-site-packages = {shared}\n")

    def call(command):
        seen.append(command[2])
        return int("broken" in seen)

    monkeypatch.setattr(setup, "make_venv", make_venv)
    monkeypatch.setattr(setup.subprocess, "call", call)
    monkeypatch.setattr(setup, "report_gpu", lambda python: None)
    monkeypatch.setattr(setup.sys, "prefix", sys.base_prefix)
    return seen


def test_stamp_follows_the_files(setup, checkout, monkeypatch, made):
    provide_all_but(monkeypatch, setup, "detectron2")
    setup.fill_venv(0)
    setup.fill_venv(0)
    assert made == ["fresh"]
    with (checkout / "requirements" / "base.txt").open("a") as file:
        file.write("another\n")
    setup.fill_venv(0)
    assert made == ["fresh", "fresh"]
    setup.VENV_PYTHON.unlink()
    setup.fill_venv(0)
    assert made == ["fresh"] * 3
    setup.STAMP.unlink()
    setup.fill_venv(0)
    assert made == ["fresh"] * 4


def lay_package(packages, name="pack"):
    """Lay a package of two modules, as pip installs it."""
    info = packages / f"{name}-1.dist-info"
    files = [f"{name}/__init__.py", f"{name}/deep/module.py", f"{name}-1.dist-info/METADATA"]
    for file in files:
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).touch()
    compiled = f"{name}/__pycache__/__init__.cpython-310.pyc"  # anybody may remove it
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*files, compiled]))
    return info


@pytest.mark.parametrize("damage", ["pack/__init__.py", "pack", "pack-1.dist-info/RECORD", ""])
def test_a_damaged_environment_is_filled_again(setup, monkeypatch, made, damage):
    provide_all_but(monkeypatch, setup, "detectron2")
    setup.fill_venv(0)
    packages = next(setup.VENV.glob(setup.PACKAGES))
    lay_package(packages)
    setup.fill_venv(0)
    assert made == ["fresh"]
    path = packages / damage
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    setup.fill_venv(0)
    assert made == ["fresh", "fresh"]


def test_a_failed_installation_leaves_no_stamp(setup, monkeypatch, made):
    provide_all_but(monkeypatch, setup, "detectron2")
    made.append("broken")
    with pytest.raises(SystemExit):
        setup.fill_venv(0)
    assert not setup.STAMP.exists()


def test_detectron2_of_the_base_interpreter_is_kept(setup, monkeypatch, made):
    provide_all_but(monkeypatch, setup)
    setup.fill_venv(0)
    assert made == ["here"]


def test_an_active_environment_with_detectron2_is_used_itself(setup, monkeypatch, calls, capsys):
    monkeypatch.setattr(setup.sys, "prefix", "/some/environment")
    provide_all_but(monkeypatch, setup)
    setup.fill_venv(0)
    assert capsys.readouterr().out == "set-up: complete in /some/environment\n"
    setup.main("which")
    assert calls == [] and not setup.VENV.exists()
    assert capsys.readouterr().out.splitlines()[-1] == sys.executable
    provide_all_but(monkeypatch, setup, "detectron2")
    setup.main("which")
    assert capsys.readouterr().out == ".venv/bin/python\n"


def test_make_venv_mends_what_is_broken(setup, monkeypatch):
    provide_all_but(monkeypatch, setup, "detectron2", "ensurepip")
    setup.make_venv()
    packages = next(setup.VENV.glob(setup.PACKAGES))
    lay_package(packages, "whole")
    (lay_package(packages, "interrupted") / "RECORD").unlink()
    lay_package(packages, "damaged")
    (packages / "damaged" / "deep" / "module.py").unlink()
    (packages / "~emoved").mkdir()
    setup.make_venv()
    left = ["damaged", "interrupted", "whole", "whole-1.dist-info"]
    assert sorted(path.name for path in packages.iterdir()) == left
    assert not (packages / "damaged" / "__init__.py").exists()  # so that it counts as missing
    setup.VENV_PYTHON.unlink()
    setup.VENV_PYTHON.symlink_to("/no/such/python")
    setup.make_venv()
    assert setup.VENV_PYTHON.exists() and list(packages.iterdir()) == []


def test_time_and_size_are_printed(setup, monkeypatch, calls, capsys):
    provide_all_but(monkeypatch, setup, "yacs")
    monkeypatch.setattr(setup.sys, "prefix", str(setup.VENV))
    setup.VENV.mkdir()
    (setup.VENV / "weights").write_bytes(bytes(10**6))
    os.truncate(setup.VENV / "weights", 5_900_000_000)  # it takes no room
    (setup.VENV / "lib64").symlink_to(setup.VENV)
    setup.fill_here(True, time.time() - 161)
    assert "set-up: complete in .venv: 5.9 GB, 2 min 41 s" in capsys.readouterr().out
    assert setup.duration(41.4) == "41 s"


def test_a_gpu_that_torch_cannot_use_is_reported(setup, monkeypatch, tmp_path, capsys):
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    setup.report_gpu(sys.executable)
    assert 'set-up: nvidia-smi fails ("No devices were found")' in capsys.readouterr().out

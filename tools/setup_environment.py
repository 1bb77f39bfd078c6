"""Prepare the environment that the Makefile runs in, with the standard library alone.

Actions: `venv` (the default) fills .venv, or this environment if it is an active one that has
Detectron2; `which` prints the interpreter that `venv` prepares; `here` adds to this interpreter's
environment only what it lacks; `fresh` installs the pinned set into it.
"""

import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / "setup-complete"
OLDEST, NEWEST = (3, 10), (3, 14)  # the torch of requirements/torch.txt has wheels for these
# Modules by which a package is found, where they do not have its name.
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "setuptools": "pkg_resources"}
MODULES |= {"hydra-core": "hydra", "opencv-python-headless": "cv2"}
# With PYTHONDONTWRITEBYTECODE each process would compile the modules anew.
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.dont_write_bytecode = False
for package in ("eakd_det", "classification", "llm"):
    for module in pkgutil.walk_packages([package], package + "."):
        importlib.import_module(module.name)
"""


def say(text):
    """Print one line of progress."""
    print("set-up: " + text, flush=True)


def has(module):
    """Return whether a module can be found here; a folder without __init__.py does not count."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def refusal(version, with_torch):
    """Return the reason why this Python cannot be used, or None; a newer one may have its torch."""
    if version >= OLDEST and (version <= NEWEST or with_torch):
        return None
    text = "Python {}.{} cannot be used: torch and Detectron2 are installed on {}.{} to {}.{}"
    return text.format(*version, *OLDEST, *NEWEST) + " (make setup BASE=python3.11)"


def requirements(*names):
    """Return the requirement lines of requirements/<name>.txt, without comments."""
    texts = [(ROOT / "requirements" / (name + ".txt")).read_text() for name in names]
    lines = "\n".join(texts).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def name_of(requirement):
    """Return the name of the package of a requirement line."""
    return re.match(r"[\w.-]+", requirement).group()


def is_met(requirement):
    """Return whether the package of a requirement line is installed, in whatever version."""
    name = name_of(requirement)
    return has(MODULES.get(name, name.replace("-", "_")))


def kept_versions(met):
    """Return constraint lines that keep the packages of the met requirements at their versions."""
    from importlib import metadata  # here, for an old Python must get as far as its refusal

    lines = []
    for name in map(name_of, met):
        # A module that comes from a package of another name (pillow-simd) has no version to hold.
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines.append(f"{name}=={metadata.version(name)}")
    return lines


def run(command):
    """Run a command in the checkout; if it fails, the set-up ends after its error message."""
    if subprocess.call([str(part) for part in command], cwd=str(ROOT)):
        sys.exit("set-up: stopped, see above; the same make command continues")


def pip_install(*arguments):
    """Call pip for this environment; that of the base interpreter if this one has no pip."""
    pip = [sys.executable, "-m", "pip"]
    if not has("pip"):
        pip = [sys._base_executable, "-m", "pip", "--python", sys.executable]
    # Detectron2's wheel asks for numpy<2 and black, and runs without: no warnings about that.
    quiet = ["-q", "--disable-pip-version-check", "--no-warn-conflicts"]
    # Most of the modules are never imported; those that are get compiled at the end.
    run([*pip, "install", "--no-compile", *quiet, *arguments])


def drop_package(folder, package):
    """Remove a package from a folder that holds one unpacked wheel, and from its RECORD."""
    record = next(folder.glob("*.dist-info/RECORD"))
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if not line.startswith(package + "/")))
    shutil.rmtree(str(folder / package))


def install_detectron2():
    """Unpack the wheel beside the other packages and move it in without its `tools` package."""
    say("installing Detectron2")
    purelib = Path(sysconfig.get_path("purelib"))
    with tempfile.TemporaryDirectory(prefix="detectron2-", dir=str(purelib)) as folder:
        # The wheel's tag names Python 3.10; its Python files run on any newer one.
        options = ["--no-deps", "--require-hashes", "--only-binary=:all:"]
        options += ["--python-version", "3.10", "--target", folder]
        pip_install(*options, "-r", "requirements/detectron2.txt")
        drop_package(Path(folder), "tools")
        # The package comes last: until it is there the set-up counts it as missing.
        for entry in sorted(Path(folder).iterdir(), key=lambda entry: entry.name == "detectron2"):
            shutil.rmtree(str(purelib / entry.name), ignore_errors=True)
            os.replace(str(entry), str(purelib / entry.name))


def install(keep):
    """Install the missing requirements or, without `keep`, the whole pinned set."""
    wanted = requirements("base", "analysis", "test")
    met = [line for line in wanted if keep and is_met(line)]
    missing = [line for line in wanted if line not in met]
    if not keep or not has("torch"):
        missing = requirements("torch") + missing
    if not missing and has("detectron2") and has("eakd_det"):
        return say("complete in " + sys.prefix)
    if missing:
        names = ", ".join(dict.fromkeys(map(name_of, missing)))
        say("installing " + names + ("" if has("torch") else " (several GB, some minutes)"))
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "kept.txt"
            constraints.write_text("\n".join(kept_versions(met)))
            pip_install("-c", constraints, *missing)
    if not has("detectron2"):
        install_detectron2()
    if not keep or not has("eakd_det"):
        # A setuptools that has bdist_wheel builds alone; an older one needs pip's isolated build.
        setuptools = Path(importlib.util.find_spec("setuptools").origin).parent
        builds_alone = (setuptools / "command" / "bdist_wheel.py").exists()
        alone = ["--no-build-isolation"] if builds_alone else []
        pip_install("--no-deps", *alone, "-e", ".")
    say("importing torch, Detectron2 and all other dependencies")
    run([sys.executable, "-Wignore", "-c", IMPORT_ALL])
    return say("complete in " + sys.prefix)


def is_inside_venv():
    """Return whether this interpreter is that of .venv."""
    return Path(sys.prefix).resolve() == VENV.resolve()


def is_own():
    """Return whether this is a virtual environment other than .venv that has Detectron2."""
    return sys.prefix != sys.base_prefix and not is_inside_venv() and has("detectron2")


def make_venv():
    """Make or repair .venv; a Detectron2 outside virtual environments stays visible in it."""
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    runs = VENV_PYTHON.exists() and not subprocess.call([str(VENV_PYTHON), "-c", same])
    say("{} .venv with Python {}.{}".format("mending" if runs else "making", *sys.version_info))
    shared = sys.prefix == sys.base_prefix and has("detectron2")
    venv.create(VENV, shared, clear=not runs, symlinks=True, with_pip=has("ensurepip"))
    # An interrupted pip leaves a package that looks installed; RECORD is what it writes last.
    for info in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (info / "RECORD").exists():
            shutil.rmtree(str(info))


def fill_venv():
    """Prepare .venv unless its stamp is that of the same requirement files."""
    if is_own():
        return install(keep=True)
    files = [ROOT / "setup.py", Path(__file__), *sorted(ROOT.glob("requirements/*.txt"))]
    stamp = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    if VENV_PYTHON.exists() and STAMP.exists() and STAMP.read_text() == stamp:
        return say("complete in .venv")
    if not is_inside_venv():
        make_venv()
    keep = "include-system-site-packages = true" in (VENV / "pyvenv.cfg").read_text()
    if subprocess.call([str(VENV_PYTHON), __file__, "here" if keep else "fresh"]):
        sys.exit(1)
    return STAMP.write_text(stamp)


def main(action="venv"):
    """Run one of the actions that the module's docstring lists."""
    why = refusal(sys.version_info[:2], has("torch"))
    if why:
        sys.exit("set-up: " + why)
    actions = {
        "venv": fill_venv,
        "which": lambda: print(sys.executable if is_own() else VENV_PYTHON.relative_to(ROOT)),
        "here": lambda: install(keep=True),
        "fresh": lambda: install(keep=False),
    }
    actions[action]()


if __name__ == "__main__":
    main(*sys.argv[1:])

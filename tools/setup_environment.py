"""Prepare the environment that the tools run in, with the standard library alone.

Actions: `venv` (the default) fills or repairs .venv, or this environment if it is an active one
that has Detectron2; `which` prints the interpreter that `venv` prepares; `here` adds to this
interpreter's environment only what it lacks; `fresh` installs the pinned set into it.
"""

import contextlib
import csv
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
IS_WINDOWS = os.name == "nt"
VENV_PYTHON = VENV / ("Scripts/python.exe" if IS_WINDOWS else "bin/python")
PACKAGES = "Lib/site-packages" if IS_WINDOWS else "lib/python*/site-packages"
STAMP = VENV / "setup-complete"
OLDEST, NEWEST = (3, 10), (3, 14)  # the torch of requirements/torch.txt has wheels for these
# Modules by which a package is found, where they do not have its name.
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "setuptools": "pkg_resources"}
MODULES |= {"hydra-core": "hydra", "opencv-python-headless": "cv2", "pytest-xdist": "xdist"}
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
    return (
        text.format(*version, *OLDEST, *NEWEST)
        + " (python3.12 tools/setup_environment.py, or make setup BASE=python3.12)"
    )


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
        sys.exit("set-up: stopped, see above; the same command continues")


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
    with tempfile.TemporaryDirectory(prefix="~detectron2-", dir=str(purelib)) as folder:
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
    """Install the missing requirements or, without `keep`, the whole pinned set.

    Returns whether anything was missing.
    """
    wanted = requirements("base", "analysis", "test")
    met = [line for line in wanted if keep and is_met(line)]
    missing = [line for line in wanted if line not in met]
    if not keep or not has("torch"):
        missing = requirements("torch") + missing
    if not missing and has("detectron2") and has("eakd_det"):
        return False
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
    return True


def is_inside_venv():
    """Return whether this interpreter is that of .venv."""
    return Path(sys.prefix).resolve() == VENV.resolve()


def is_own():
    """Return whether this is a virtual environment other than .venv that has Detectron2."""
    return sys.prefix != sys.base_prefix and not is_inside_venv() and has("detectron2")


def make_venv():
    """Make .venv, or keep it; a Detectron2 outside virtual environments stays visible in it."""
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    runs = VENV_PYTHON.exists() and not subprocess.call([str(VENV_PYTHON), "-c", same])
    say("{} .venv with Python {}.{}".format("mending" if runs else "making", *sys.version_info))
    mend()
    shared = sys.prefix == sys.base_prefix and has("detectron2")
    options = {"symlinks": not IS_WINDOWS, "with_pip": has("ensurepip")}
    venv.create(VENV, shared, clear=not runs, **options)


def broken_packages(packages, depth=99):
    """Yield the .dist-info of each package of a folder that is not whole, and its files.

    With `depth` only the files in so many folders are looked for.
    """
    for info in packages.glob("*.dist-info"):
        record, files = info / "RECORD", []
        if record.exists():  # an interrupted pip leaves none: it is what pip writes last
            with record.open(encoding="utf-8", newline="") as file:
                files = [row[0] for row in csv.reader(file) if row and row[0].count("/") <= depth]
        needed = [name for name in files if not name.endswith(".pyc")]
        if not needed or not all(os.path.exists(os.path.join(packages, x)) for x in needed):
            yield info, [packages / name for name in files]


def mend():
    """Remove from .venv what pip would take for an installed package, and is not whole."""
    for packages in VENV.glob(PACKAGES):
        for folder in packages.glob("~*"):  # left by an interrupted pip, or install_detectron2
            shutil.rmtree(str(folder))
        for info, files in broken_packages(packages):
            for path in filter(Path.is_file, files):
                path.unlink()
            shutil.rmtree(str(info))


def is_complete(checksum):
    """Return whether .venv was filled by the same requirement files, and all packages are there."""
    if not (VENV_PYTHON.exists() and STAMP.exists() and STAMP.read_text() == checksum):
        return False
    packages = next(VENV.glob(PACKAGES), None)
    return packages is not None and not any(broken_packages(packages, depth=1))


def size_of(folder):
    """Return the size of the files of a folder in bytes, without those that links name."""
    total, folders = 0, [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def duration(seconds):
    """Return a time as "41 s" or "2 min 41 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def report_gpu(python):
    """Say why the torch of an interpreter cannot use this machine's NVIDIA GPU, if it cannot."""
    command = [str(python), "-m", "eakd_det.utils.nvidia"]
    text = subprocess.check_output(command, cwd=str(ROOT), universal_newlines=True).strip()
    if text:
        say(text)


def fill_here(keep, since):
    """Install into this interpreter's environment; `since` is when the set-up began."""
    spent = ""
    if install(keep):
        size = f": {size_of(VENV) / 1e9:.1f} GB" if is_inside_venv() else ""
        spent = f"{size}, {duration(time.time() - since)}"
    say("complete in {}{}".format(".venv" if is_inside_venv() else sys.prefix, spent))
    report_gpu(sys.executable)


def fill_venv(since):
    """Prepare .venv unless it is complete."""
    if is_own():
        return fill_here(True, since)
    files = [ROOT / "setup.py", Path(__file__), *sorted(ROOT.glob("requirements/*.txt"))]
    checksum = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    if is_complete(checksum):
        say("complete in .venv")
        return report_gpu(VENV_PYTHON)
    if is_inside_venv():
        mend()
    else:
        make_venv()
    keep = "include-system-site-packages = true" in (VENV / "pyvenv.cfg").read_text()
    action = "here" if keep else "fresh"
    if subprocess.call([str(VENV_PYTHON), __file__, action, str(since)]):
        sys.exit(1)
    return STAMP.write_text(checksum)


def main(action="venv", since=None):
    """Run one of the actions that the module's docstring lists."""
    why = refusal(sys.version_info[:2], has("torch"))
    if why:
        sys.exit("set-up: " + why)
    actions = {
        "venv": lambda: fill_venv(since),
        "which": lambda: print(sys.executable if is_own() else VENV_PYTHON.relative_to(ROOT)),
        "here": lambda: fill_here(True, since),
        "fresh": lambda: fill_here(False, since),
    }
    if action in ("-h", "--help"):
        print(__doc__)
        return
    if action not in actions:
        sys.exit("set-up: choose from " + ", ".join(actions))
    since = float(since or time.time())
    actions[action]()


if __name__ == "__main__":
    main(*sys.argv[1:])

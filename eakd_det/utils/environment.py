"""The Python that runs a tool, and the .venv that the set-up makes beside it.

The Python may be one that is too old for the rest of the package.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
NEEDED = ("torch", "detectron2")


def require_packages(*, restart: bool = False) -> None:
    """Exit with a sentence if this Python lacks torch or Detectron2.

    Args:
        restart: run the same command line in .venv instead, if that is set up.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    is_set_up = (VENV / "setup-complete").exists() and Path(sys.prefix).resolve() != VENV.resolve()
    if restart and is_set_up:
        _restart()
    version = "{}.{}".format(*sys.version_info)
    lacks = f"error: {sys.executable} (Python {version}) has no {' and no '.join(missing)}: "
    setup = f"run {ROOT / 'tools' / 'setup_environment.py'} with Python 3.10 or newer, then "
    sys.exit(f"{lacks}{'' if is_set_up else setup}start this with {VENV_PYTHON}")


def _restart() -> None:
    command = [str(VENV_PYTHON), *sys.argv]
    if os.name == "nt":  # execv would give the console back at once
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)

"""Imports that systems without POSIX can do; the set-up imports every module."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("eakd_det", "classification", "llm")
POSIX = {"fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios", "tty"}


def test_no_module_of_posix_is_imported_unasked():
    found = []
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import) and POSIX & {name.name for name in node.names}:
                found.append(f"{path}:{node.lineno}")
    assert found == []

"""Rooms of the repository, and the one direction of their imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each room imports itself and those before it.
ROOMS = (
    *("utils", "losses", "layers", "checkpoint", "data", "model_zoo", "distillers", "config"),
    *("modeling", "evaluation", "export", "engine"),
    *("analysis", "sweep", "report", "benchmark", "demo", "classification", "llm", "tools"),
)
OUTSIDE = ("classification", "llm", "tools")  # the others are in eakd_det
# `add_distill_config` imports eakd_det.modeling, which registers the meta-architectures.
ALLOWED = {("eakd_det/config/defaults.py", "eakd_det.modeling")}


def _files(room):
    folder = ROOT / room if room in OUTSIDE else ROOT / "eakd_det" / room
    return sorted(folder.rglob("*.py"))


def _imported(path):
    """Full names of the modules that a file imports, wherever the statement stands."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*parts, *([node.module] if node.module else [])])
            is_root = module == "eakd_det"  # its names are rooms
            yield from (f"{module}.{alias.name}" for alias in node.names) if is_root else (module,)


def _room(module):
    first, *rest = module.split(".")
    return rest[0] if first == "eakd_det" and rest else first


def test_the_top_level_has_rooms_alone():
    files = (path.relative_to(ROOT / "eakd_det") for path in (ROOT / "eakd_det").rglob("*.py"))
    assert {path.parts[0] for path in files} == {"__init__.py", *ROOMS} - set(OUTSIDE)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room):
    above = {*ROOMS[ROOMS.index(room) + 1 :], "tests"}
    files = _files(room)
    assert files
    found = {
        (str(path.relative_to(ROOT)), module)
        for path in files
        for module in _imported(path)
        if _room(module) in above and _room(module) != room
    }
    assert found - ALLOWED == set()


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_imports_the_tools(room):
    assert [path for path in _files(room) if "tools" in map(_room, _imported(path))] == []


def test_llm_and_classification_do_not_know_each_other():
    for room, other in [("llm", "classification"), ("classification", "llm")]:
        assert [path for path in _files(room) if other in map(_room, _imported(path))] == []

import ast
import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BARE = "setup_environment.py"  # which runs before there is a package
TOOLS = [path for path in sorted((ROOT / "tools").glob("*.py")) if path.name != BARE]


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_every_tool_imports_it_first(path):
    """Each tool imports it before other packages; its help prints no warning then."""
    names = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names.append(node.module)
    foreign = [name for name in names if name.split(".")[0] not in sys.stdlib_module_names]
    assert foreign[0] == "eakd_det.utils.before_torch"


def test_the_package_leaves_the_warnings_of_a_user_alone():
    packages = ("eakd_det", "classification", "llm")
    modules = [path for package in packages for path in ROOT.glob(f"{package}/**/*.py")]
    texts = [path.read_text() for path in modules if path.name != "before_torch.py"]
    assert len(texts) > 50
    assert not [text for text in texts if "before_torch" in text]
    filtering = [text for text in texts if "filterwarnings" in text]
    assert all("with warnings.catch_warnings()" in text for text in filtering)  # and back again


@pytest.mark.parametrize(("of_the_user", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(monkeypatch, of_the_user, policy):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")  # which is undone after the test
    monkeypatch.delenv("OMP_WAIT_POLICY")
    if of_the_user:
        monkeypatch.setenv("OMP_WAIT_POLICY", of_the_user)
    with warnings.catch_warnings():
        runpy.run_path(str(ROOT / "eakd_det" / "utils" / "before_torch.py"))
    assert os.environ["OMP_WAIT_POLICY"] == policy


def test_a_mistake_is_all_that_an_interpreter_says(call_tool):
    """A new one, which imports everything."""
    words = ("--config-file", "nowhere.yaml")
    code, out, err = call_tool("train_net.py", *words, launcher=(sys.executable,))
    assert (code, out) == (1, "")
    assert err == "error: --config-file: there is no file 'nowhere.yaml'.\n"

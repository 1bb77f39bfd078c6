"""The wheel, beside a stock Detectron2 in an environment without this checkout."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import detectron2
import pytest
import torch
from packaging.version import Version

from eakd_det.data.datasets.digits import generate_digits

ROOT = Path(__file__).parents[1]
SOURCES = ("eakd_det", "classification", "llm", "tools", "tests", "configs", "requirements")
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
# What a user writes beside Detectron2's train_net.py, from a config of the model zoo.
SCRIPT = """
import os
import torch
from detectron2.config import get_cfg
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from eakd_det import model_zoo
from eakd_det.config import add_distill_config, stock_config

options = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0]
teacher = get_cfg()
teacher.merge_from_file(model_zoo.get_config_file("Digits-Detection/Teacher-R101.yaml"))
teacher.merge_from_list(options)
torch.save({"model": build_model(teacher).state_dict()}, "teacher.pth")

cfg = get_cfg()
add_distill_config(cfg)
cfg.merge_from_file(model_zoo.get_config_file("Digits-Detection/EA-DKD-R18-R101.yaml"))
cfg.merge_from_list([*options, "SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2])
cfg.TEACHER.WEIGHTS, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = "teacher.pth", (), "."
trainer = DefaultTrainer(cfg)
trainer.resume_or_load(resume=False)
trainer.train()
"""


OFFLINE = ("-q", "--no-deps", "--no-build-isolation", "--no-index")
PLACES = """
import importlib.util
specs = [importlib.util.find_spec(name) for name in ("eakd_det", "classification", "llm")]
print(*[spec and spec.origin for spec in specs], sep="\\n")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of this checkout without files of earlier builds."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("the environment has no pip")
    if Version(version("setuptools")) < Version("70.1"):
        pytest.skip("the environment's setuptools is older than 70.1 and builds no wheel")
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """Path of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", *OFFLINE, "-w", folder, source], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def python(tmp_path):
    """Path of an interpreter that has the packages of this environment, but no checkout."""
    venv.create(tmp_path / "env", symlinks=True, with_pip=False)
    (purelib,) = (tmp_path / "env").glob("lib/python*/site-packages")
    paths = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    # Of an environment below this one, or on PYTHONPATH.
    paths |= {str(Path(package.__file__).parents[1]) for package in (torch, detectron2)}
    (purelib / "others.pth").write_text("\n".join(sorted(paths)))
    return tmp_path / "env" / "bin" / "python"


@pytest.fixture
def call(python, tmp_path):
    """Run that interpreter to its end in tmp_path; its standard output."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"DETECTRON2_DATASETS": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}

    def call(*arguments):
        options = {"cwd": tmp_path, "env": variables, "capture_output": True, "text": True}
        result = subprocess.run([python, *arguments], **options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return call


def test_the_wheel_holds_the_package_alone(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.split("/")[0] for name in names} == {"eakd_det", "eakd_det-0.1.0.dist-info"}
    ours = {p.relative_to(ROOT) for p in (ROOT / "eakd_det").rglob("*") if p.is_file()}
    ours = {str(path) for path in ours if path.suffix != ".pyc"}
    configs = {str(p.relative_to(ROOT)) for p in ROOT.glob("configs/*-Detection/**/*.*")}
    configs = {f"eakd_det/model_zoo/{name}" for name in configs if not name.endswith(".pyc")}
    assert ours | configs == {name for name in names if name.startswith("eakd_det/")}


def test_a_user_s_script_trains_with_the_wheel(wheel, call, tmp_path):
    (purelib,) = (tmp_path / "env").glob("lib/python*/site-packages")
    subprocess.run([*PIP, "install", *OFFLINE, "--target", purelib, wheel], check=True)
    generate_digits(str(tmp_path / "data" / "digits_det"), num_scenes={"train": 2, "val": 1})
    (tmp_path / "train.py").write_text(SCRIPT)
    call("train.py")
    assert "loss_dkd" in (tmp_path / "metrics.json").read_text()
    saved = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 1
    assert call("-c", PLACES).split() == [str(purelib / "eakd_det" / "__init__.py"), "None", "None"]


def test_an_editable_installation_has_what_the_tools_import(source, python, call):
    install = ["--python", python, "install", *OFFLINE, "--ignore-installed", "-e", source]
    subprocess.run([*PIP, *install], check=True)
    names = ("eakd_det", "classification", "llm")
    assert call("-c", PLACES).split() == [str(source / name / "__init__.py") for name in names]

"""Package eakd-det; its requirements stand in requirements/, which the set-up reads, too."""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Of detectors.
CONFIGS = ("COCO-Detection", "Digits-Detection", "Fashion-Detection", "Trees-Detection")


def requirements(name):
    """Return the requirement lines of requirements/<name>.txt, without its comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


class BuildWithConfigs(build_py):
    """build_py that copies the detectors' configs into eakd_det.model_zoo."""

    def run(self):
        super().run()
        if self.editable_mode:  # the model zoo finds those of the checkout
            return
        target = Path(self.build_lib, "eakd_det", "model_zoo", "configs")
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for name in CONFIGS:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / "configs" / name, target / name, ignore=ignored)


setup(
    name="eakd-det",
    version="0.1.0",
    description="Entropy-based adaptive knowledge distillation, for Detectron2 first",
    license="Apache-2.0",
    # The wheel holds eakd_det alone. `classification` and `llm` are run from a checkout, whose root
    # an editable installation adds to sys.path; it does so because package_dir names the root.
    packages=find_packages(include=["eakd_det", "eakd_det.*"]),
    package_dir={"": "."},
    package_data={
        "eakd_det": [
            "data/datasets/typefaces.tsv",
            "sweep/published.yaml",
            "report/page.css",
            "report/page.html.j2",
            "report/page.js",
        ],
    },
    cmdclass={"build_py": BuildWithConfigs},
    python_requires=">=3.10",
    # Detectron2 is not listed: the package index does not have it under its own name, many users
    # compile it themselves, and eakd_det.losses imports where it is absent. `make setup` brings it.
    install_requires=requirements("base"),
    extras_require={
        name: requirements(name) for name in ("analysis", "classification", "export", "llm", "test")
    },
)

"""The package eakd-det; what it needs stands in requirements/, where the set-up reads it too."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name):
    """The requirement lines of requirements/<name>.txt, without its comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


setup(
    name="eakd-det",
    version="0.1.0",
    description="Entropy-based adaptive knowledge distillation, for Detectron2 first",
    license="Apache-2.0",
    packages=find_packages(
        include=["eakd_det", "eakd_det.*", "classification", "classification.*", "llm", "llm.*"]
    ),
    package_data={
        "classification": ["published.yaml"],
        "eakd_det": [
            "sweep/published.yaml",
            "report/page.css",
            "report/page.html.j2",
            "report/page.js",
        ],
        "llm": ["published.yaml"],
    },
    python_requires=">=3.10",
    # Detectron2 is not listed: the package index does not have it under its own name, many users
    # compile it themselves, and eakd_det.losses imports where it is absent. `make setup` brings it.
    install_requires=requirements("base"),
    extras_require={
        name: requirements(name) for name in ("analysis", "classification", "llm", "test")
    },
)

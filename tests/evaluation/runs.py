"""Run folders for the tests of predictions."""

from pathlib import Path

import torch

from tests.conftest import save_teacher


def save_run(folder, cfg, names=()):
    """Write the folder of a run, whose detector is sure of some of its detections; its path."""
    folder.mkdir()
    paths = [Path(path) for path in save_teacher(cfg, folder)]
    for path, name in zip(paths, ("config.yaml", "model_final.pth"), strict=True):
        path.rename(folder / name)
    if names:
        content = torch.load(folder / "model_final.pth", weights_only=True)
        torch.save({**content, "class_names": list(names)}, folder / "model_final.pth")
    return str(folder)

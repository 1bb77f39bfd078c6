"""The runs and checkpoints that a user names."""

import os
import re
from dataclasses import dataclass

from eakd_det.checkpoint.safe_pickle import load_pth
from eakd_det.utils.errors import UserError

FINAL = "model_final.pth"
WORDS = {FINAL: "final", "model_best.pth": "best"}


@dataclass(frozen=True)
class Run:
    """A run's folder and one of its checkpoints.

    Attributes:
        label: for figures and tables.
        name: of the run, the same for all its checkpoints.
        folder: of the run.
        checkpoint: a file in it.
    """

    label: str
    name: str
    folder: str
    checkpoint: str = FINAL

    @property
    def weights(self) -> str:
        """Path of the checkpoint.

        Raises:
            UserError: there is none.
        """
        path = os.path.join(self.folder, self.checkpoint)
        if not os.path.exists(path):
            raise UserError(
                f"{self.folder} holds no {self.checkpoint}: the run is not finished. Name one of "
                f"its checkpoints: {self.folder}/model_*.pth."
            )
        return path

    def config_file(self, fallback: str = "") -> str:
        """Return the path of the run's config.yaml, or `fallback` if it has none.

        Raises:
            UserError: there is neither.
        """
        path = os.path.join(self.folder, "config.yaml")
        if os.path.exists(path):
            return path
        if not fallback:
            raise UserError(
                f"{self.folder} holds no config.yaml: name the config of the run with "
                "--config-file."
            )
        return fallback

    def iteration(self) -> int:
        """Read the number of steps that the checkpoint was trained for.

        Raises:
            UserError: the checkpoint does not have it.
        """
        last = load_pth(self.weights).get("iteration")
        if last is None:
            raise UserError(f"{self.weights} has no iteration number.")
        return last + 1


def find_runs(texts: list[str]) -> list[Run]:
    """Return the runs that `[LABEL=]PATH` name: a folder (its last weights) or a checkpoint in it.

    Without a label a run is called by the part of its path that differs from the others'. Several
    checkpoints of a run may have the same label.

    Raises:
        UserError: there is no such path, or the same one comes twice under one label.
    """
    given, places = zip(*map(_split, texts), strict=True)
    made = _names([folder for folder, _ in places])
    names = [own or name for own, name in zip(given, made, strict=True)]
    runs = []
    for own, name, place in zip(given, names, places, strict=True):
        is_plain = names.count(name) == 1 and (own or place[1] == FINAL)
        runs.append(Run(name if is_plain else f"{name}, {_word(place[1])}", name, *place))
    labels = [run.label for run in runs]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"Two runs are called {label!r}: name each as LABEL=PATH.")
    return runs


def named_run(text: str) -> Run | None:
    """Return the run that `[LABEL=]PATH` names; None for an empty text."""
    return find_runs([text])[0] if text else None


def _split(text: str) -> tuple[str, tuple[str, str]]:
    """Return the label ("" if none is given), and folder and checkpoint."""
    label, path = _split_label(text)
    if os.path.isdir(path):
        return label, (os.path.normpath(path), FINAL)
    if not os.path.exists(path):
        raise UserError(
            f"There is no run folder or checkpoint {path!r} (paths are relative to the working "
            "directory)."
        )
    folder, name = os.path.split(path)
    return label, (os.path.normpath(folder), name)


def _split_label(text: str) -> tuple[str, str]:
    """Return label and path; "=" may also be in either, as a varied key's value is in a sweep's."""
    parts = text.split("=")
    splits = [("=".join(parts[:i]), "=".join(parts[i:])) for i in range(len(parts))]
    fallback = splits[min(1, len(splits) - 1)]
    return next((split for split in splits if os.path.exists(split[1])), fallback)


def _names(folders: list[str]) -> list[str]:
    """Return the part of each path that they do not have in common, or else its last part."""
    paths = [os.path.abspath(folder).split(os.sep) for folder in folders]
    start = _num_common(paths)
    end = _num_common([path[start:][::-1] for path in paths])
    return ["/".join(path[start : len(path) - end]) or path[-1] for path in paths]


def _num_common(paths: list[list[str]]) -> int:
    """Count the equal parts that all paths begin with."""
    number = min(map(len, paths))
    while any(path[:number] != paths[0][:number] for path in paths):
        number -= 1
    return number


def _word(checkpoint: str) -> str:
    number = re.fullmatch(r"model_(\d+)\.pth", checkpoint)
    if number:
        return f"iteration {int(number[1]) + 1}"
    return WORDS.get(checkpoint, checkpoint)

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
        name: of the run, whichever checkpoint it is.
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
        """The config that the run has written, or `fallback` where it has written none.

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
        """Steps that the checkpoint was trained for; it is read for that.

        Raises:
            UserError: it does not say.
        """
        last = load_pth(self.weights).get("iteration")
        if last is None:
            raise UserError(f"{self.weights} does not say after which iteration it was written.")
        return last + 1


def find_runs(texts: list[str]) -> list[Run]:
    """The runs that `[LABEL=]PATH` name: a run's folder (its last weights) or a checkpoint in it.

    Without a label a run is called by what its path has and those of the others lack. Several
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


def _split(text: str) -> tuple[str, tuple[str, str]]:
    """Label ("" if none is given), and folder and checkpoint."""
    label, equals, path = text.partition("=")
    if not equals or os.path.exists(text):
        label, path = "", text
    if os.path.isdir(path):
        return label, (os.path.normpath(path), FINAL)
    if not os.path.exists(path):
        raise UserError(
            f"There is no run folder or checkpoint {path!r}, as seen from the folder in which the "
            "tool is called."
        )
    folder, name = os.path.split(path)
    return label, (os.path.normpath(folder), name)


def _names(folders: list[str]) -> list[str]:
    """What the folders' paths do not have in common; where that is nothing, their last part."""
    paths = [os.path.abspath(folder).split(os.sep) for folder in folders]
    start = _num_common(paths)
    end = _num_common([path[start:][::-1] for path in paths])
    return ["/".join(path[start : len(path) - end]) or path[-1] for path in paths]


def _num_common(paths: list[list[str]]) -> int:
    """With how many equal parts all paths begin."""
    number = min(map(len, paths))
    while any(path[:number] != paths[0][:number] for path in paths):
        number -= 1
    return number


def _word(checkpoint: str) -> str:
    number = re.fullmatch(r"model_(\d+)\.pth", checkpoint)
    if number:
        return f"iteration {int(number[1]) + 1}"
    return WORDS.get(checkpoint, checkpoint)

"""The command lines of the analyses, declared without importing torch or Detectron2.

Each family of runs has the functions that carry its commands out: `RunKind.analyses`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eakd_det.utils.command_line import positive, positive_number

GRID_SIZES = (11, 21, 41, 81)  # points of an axis; each grid halves the steps of the previous one

# Flags of the commands that load networks.
NETWORK_OPTIONS: dict[str, dict[str, Any]] = {
    "--teacher": {"default": "", "metavar": "RUN", "help": "run of the teacher"},
    "--config-file": {
        "default": "",
        "metavar": "FILE",
        "help": "config of checkpoints without a config.yaml beside them",
    },
}


def number_option(default: float, text: str, **keywords: Any) -> dict[str, Any]:
    """Return argparse's keywords of a flag for a number of the default's type."""
    help_text = f"{text}; %(default)s by default"
    return {"type": type(default), "default": default, "help": help_text, **keywords}


@dataclass(frozen=True)
class Command:
    """A command of tools/analyze.py.

    Attributes:
        summary: for the help.
        options: flag -> argparse's keywords.
    """

    summary: str
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def needs_networks(self) -> bool:
        """Return whether the networks of the runs are loaded, by their configs."""
        return NETWORK_OPTIONS.keys() <= self.options.keys()


DYNAMICS = Command("entropies and weights over the training, of classifiers and detectors")
CLASSIFIERS: dict[str, Command] = {
    "entropy-segments": Command(
        "accuracy of teacher and students in tenths of the test images, by entropy",
        NETWORK_OPTIONS,
    ),
    "weights": Command(
        "w_EA of the test images, and how much each network contributes", NETWORK_OPTIONS
    ),
    "confusions": Command(
        "accuracy of each class, and which classes are taken for which others", NETWORK_OPTIONS
    ),
    "calibration": Command(
        "confidence and accuracy on the test images, before and after temperature scaling",
        {
            "--save-calibrated": {
                "default": "",
                "metavar": "FILE",
                "help": "new checkpoint of the teacher (or of the only run), whose logits are over "
                "--temperature",
            },
            "--temperature": {
                "type": positive_number,
                "metavar": "T",
                "help": "temperature of --save-calibrated; the fitted one by default",
            },
            **NETWORK_OPTIONS,
        },
    ),
    "tsne": Command(
        "penultimate features in the plane, and how distinct classes are",
        {
            "--num-images": number_option(
                2000, "number of test images", type=positive, metavar="N"
            ),
            "--seed": number_option(0, "seed of t-SNE"),
            **NETWORK_OPTIONS,
        },
    ),
    "landscape": Command(
        "loss around the weights, its variance and Area@x",
        {
            "--grid": number_option(
                21, "points of an axis, after the coarser grids", dest="size", choices=GRID_SIZES
            ),
            "--num-images": number_option(
                1000, "number of training images", type=positive, metavar="N"
            ),
            "--level": number_option(1.6, "loss of Area@x", metavar="X"),
            "--half-width": number_option(
                1.0, "half-width of the plane, in norms of filters", metavar="W"
            ),
            "--seed": number_option(0, "seed of the directions"),
            **NETWORK_OPTIONS,
        },
    ),
    "dynamics": DYNAMICS,
}
DETECTORS: dict[str, Command] = {
    "dynamics": DYNAMICS,
    "detection": Command(
        "AP of detectors by entropy; segments, weights and t-SNE of the objects' ROIs; pictures of "
        "those with the highest weights",
        {
            "--val-json": {"default": "", "metavar": "FILE", "help": "data in COCO format"},
            "--val-images": {"default": "", "metavar": "FOLDER"},
            "--clip-boxes": {"dest": "clip", "action": "store_true", "help": "as in the training"},
            "--num-objects": number_option(
                2000, "number of objects for t-SNE", type=positive, dest="num_points", metavar="N"
            ),
            "--seed": number_option(0, "seed of t-SNE"),
            **NETWORK_OPTIONS,
        },
    ),
}
COMMANDS = CLASSIFIERS | DETECTORS

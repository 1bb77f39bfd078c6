"""The commands of tools/analyze.py, which each family of runs offers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .results import AnalysisResult, dynamics_result

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
class Analysis:
    """An analysis of runs.

    Attributes:
        summary: for the help.
        run: called with the list of runs, and with the options as keywords. Where it gives several
            results, a later one replaces figures of the same name.
        options: flag -> argparse's keywords.
    """

    summary: str
    run: Callable[..., Iterable[AnalysisResult]]
    options: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def needs_networks(self) -> bool:
        """Return whether the networks of the runs are loaded, by their configs."""
        return NETWORK_OPTIONS.keys() <= self.options.keys()


DYNAMICS = Analysis(
    "entropies and weights over the training, of classifiers and detectors",
    lambda runs: [dynamics_result(runs)],
)

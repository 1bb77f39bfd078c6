"""Charts of entropies and EA weights over the training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from eakd_det.analysis.dynamics import Dynamics, read_dynamics
from eakd_det.analysis.figures import label_ends, start_at_zero, style
from eakd_det.analysis.line_figures import dynamics_line
from eakd_det.sweep.run_files import RunFiles

from .charts import Chart, make_chart
from .curves import finish_iterations
from .runs import by_group

TITLES = {
    "teacher_entropy": "teacher entropy H_T (nats)",
    "student_entropy": "student entropy H_S (nats)",
    "w_ea": "weight w_EA, mean and 10th to 90th percentile",
}


def dynamics_charts(runs: list[RunFiles]) -> list[Chart]:
    """Draw a chart for each part of the samples and each quantity that runs have logged."""
    distilled = [f for f in runs if any(name.startswith("distill/") for name in f.metrics)]
    groups = by_group(distilled)
    found = {name: _mean([read_dynamics(files.run) for files in of]) for name, of in groups.items()}
    parts = dict.fromkeys(part for dynamics in found.values() for part in dynamics)
    return [
        _chart(found, part, column, title if len(parts) == 1 else f"{part}: {title}")
        for part in parts
        for column, title in TITLES.items()
    ]


def _mean(of_runs: list[Dynamics]) -> Dynamics:
    """Average the runs of different seeds, up to the last log of the shortest."""
    found = {}
    for part, columns in of_runs[0].items():
        same = [of[part] for of in of_runs if part in of]
        length = min(len(of["iteration"]) for of in same)
        found[part] = {
            name: np.mean([of[name][:length] for of in same], axis=0) for name in columns
        }
    return found


def _chart(found: Mapping[str, Dynamics], part: str, column: str, title: str) -> Chart:
    lines = {label: dynamics[part] for label, dynamics in found.items() if part in dynamics}
    changes = [
        f"{label} from {logged[column][0]:.3g} to {logged[column][-1]:.3g}"
        for label, logged in lines.items()
    ]
    text = f"Lines of {title} over the iterations: {', '.join(changes)}."

    def draw(axes: Axes) -> None:
        ends = []
        for index, (label, logged) in enumerate(lines.items()):
            last = dynamics_line(axes, logged, column, index)
            ends.append((last, label, style(index)["color"]))
        start_at_zero(axes)
        finish_iterations(axes)
        label_ends(axes, ends)

    return make_chart(title, text, draw)

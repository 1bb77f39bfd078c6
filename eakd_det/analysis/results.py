"""Results of the analyses: figures, their numbers, and a short table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.figure import Figure
from tabulate import tabulate
from tqdm import tqdm

from eakd_det.utils.errors import UserError

from .dynamics import read_dynamics
from .figures import save
from .landscape import Landscape
from .line_figures import draw_areas, draw_dynamics, draw_segments
from .plane_figures import draw_contours, draw_separations, draw_surfaces
from .runs import Run
from .samples import Samples
from .segments import NUM_SEGMENTS, Segment, entropy_segments
from .separation import separate


@dataclass(frozen=True)
class AnalysisResult:
    """Result of an analysis.

    Attributes:
        figures: file name -> figure, and its numbers.
        headers, rows: a short table of the main numbers.
        files: paths of other files that the analysis has written.
    """

    figures: dict[str, tuple[Figure, dict[str, Any]]]
    headers: list[str]
    rows: list[list[Any]]
    files: Sequence[str] = ()

    def table(self) -> str:
        """Format the table as text."""
        return tabulate(self.rows, headers=self.headers, floatfmt=".4g")

    def write(self, folder: str, compared: Sequence[str] = ()) -> list[str]:
        """Save the figures (`eakd_det.analysis.figures.save`); return their and `files`' paths.

        Args:
            compared: labels of the runs in the figures, for the numbers.
        """
        paths = [
            path
            for name, (figure, numbers) in self.figures.items()
            for path in save(figure, folder, name, {"compared": [*compared], **numbers})
        ]
        return [*paths, *self.files]


def segments_result(
    teacher: Samples, students: Mapping[str, Samples], *, temperature: float, what: str = "images"
) -> AnalysisResult:
    """Compute the accuracy in tenths of the samples, by teacher entropy and by student entropy.

    Args:
        what: name of the samples.

    Raises:
        UserError: there are too few samples.
    """
    if len(teacher.labels) < NUM_SEGMENTS:
        raise UserError(f"{len(teacher.labels)} samples are too few for {NUM_SEGMENTS} segments.")
    by_teacher = {
        name: entropy_segments(teacher.entropy(temperature), teacher, student)
        for name, student in students.items()
    }
    by_student = {
        name: entropy_segments(student.entropy(temperature), teacher, student)
        for name, student in students.items()
    }
    orders = {"teacher": by_teacher, "student": by_student}
    numbers = {
        f"by_{order}_entropy": {name: [asdict(s) for s in parts] for name, parts in of.items()}
        for order, of in orders.items()
    }
    rows = [
        [name, order, _interval(parts[0]), _interval(parts[-1])]
        for order, of in orders.items()
        for name, parts in of.items()
    ]
    figure = draw_segments(by_teacher, by_student, temperature=temperature, what=what)
    headers = ["student", "entropy of", "gap, lowest entropy", "gap, highest entropy"]
    numbers = {"temperature": temperature, "samples": len(teacher.labels), **numbers}
    return AnalysisResult({"entropy_segments": (figure, numbers)}, headers, rows)


def _interval(segment: Segment) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*segment.gap)


def separation_result(
    samples: Mapping[str, Samples],
    teacher: Samples | None,
    rows: list[list[str]],
    *,
    names: Sequence[str],
    temperature: float,
    seed: int,
    what: str = "test images",
) -> AnalysisResult:
    """Compute t-SNE and the Calinski-Harabasz index of each network, with a progress bar.

    Args:
        samples: outputs of each network, the teacher among them.
        teacher: outputs of the teacher, for w_EA; None without one.
        rows: of `eakd_det.analysis.figures.panel_rows`.
        names: of the classes.
        temperature: softmax temperature of the entropies.
        seed: of t-SNE.
        what: name of the samples.
    """
    separations = {
        name: separate(of, None if of is teacher else teacher, temperature=temperature, seed=seed)
        for name, of in tqdm(samples.items(), desc="t-SNE")
    }
    numbers = {
        "samples": len(next(iter(separations.values())).labels),
        "seed": seed,
        "networks": {
            name: {"calinski_harabasz": s.index, "top1": s.top1} for name, s in separations.items()
        },
    }
    figure = draw_separations(separations, rows, names=names, what=what)
    table = [[name, s.index, s.top1] for name, s in separations.items()]
    headers = ["network", "Calinski-Harabasz", "top-1 (%)"]
    return AnalysisResult({"tsne": (figure, numbers)}, headers, table)


def landscapes_result(
    landscapes: Mapping[str, list[Landscape]],
    *,
    rows: list[list[str]],
    runs: Mapping[str, Mapping[int, str]],
    level: float,
    teacher: str | None,
    setting: Mapping[str, Any],
) -> AnalysisResult:
    """Draw contours, surfaces, and for several checkpoints of a run Area@level over the training.

    Args:
        landscapes: network -> its landscapes, of growing size.
        rows: of `eakd_det.analysis.figures.panel_rows`.
        runs: name -> iteration -> network, of runs with several checkpoints.
        level: of Area@level.
        teacher: name of the teacher's network.
        setting: added to the numbers.
    """
    finest = {name: of[-1] for name, of in landscapes.items()}
    numbers = {
        **setting,
        "level": level,
        "networks": {name: [_numbers(x, level) for x in of] for name, of in landscapes.items()},
    }
    grids = {
        name: {"coordinates": x.coordinates.tolist(), "losses": x.losses.tolist()}
        for name, x in finest.items()
    }
    figures = {
        "landscape_contours": (draw_contours(finest, rows, level=level), numbers),
        "landscape_surfaces": (draw_surfaces(finest, rows, level=level), {"networks": grids}),
    }
    if runs:
        lines = {
            run: {step: finest[name].area_below(level) for step, name in of.items()}
            for run, of in runs.items()
        }
        own = None if teacher is None else finest[teacher].area_below(level)
        figure = draw_areas(lines, own, level=level)
        figures["landscape_area"] = (figure, {"level": level, "runs": lines, "teacher": own})
    table = [
        [name, x.centre, x.variance, x.area_below(level), *_change(landscapes[name], level)]
        for name, x in finest.items()
    ]
    headers = ["network", "loss", "variance", f"Area@{level:g}"]
    headers += (
        ["variance, coarser", "Area, coarser"] if len(next(iter(landscapes.values()))) > 1 else []
    )
    return AnalysisResult(figures, headers, table)


def _numbers(landscape: Landscape, level: float) -> dict[str, float]:
    return {
        "points": landscape.losses.size,
        "loss": landscape.centre,
        "lowest": float(landscape.losses.min()),
        "highest": float(landscape.losses.max()),
        "variance": landscape.variance,
        "area": landscape.area_below(level),
    }


def _change(landscapes: list[Landscape], level: float) -> list[float]:
    """Variance and area of the grid before the last, as a measure of convergence."""
    return [y for x in landscapes[-2:-1] for y in (x.variance, x.area_below(level))]


def analyze_dynamics(runs: list[Run]) -> list[AnalysisResult]:
    """Draw the entropies and weights over the training of each run.

    Raises:
        UserError: a run has logged none.
    """
    found = {run.label: read_dynamics(run) for run in runs}
    numbers = {
        "runs": {
            name: {
                part: {column: values.tolist() for column, values in logged.items()}
                for part, logged in dynamics.items()
            }
            for name, dynamics in found.items()
        }
    }
    columns = ("teacher_entropy", "student_entropy", "w_ea")
    rows = [
        [name, part, *(f"{logged[c][0]:.3g} -> {logged[c][-1]:.3g}" for c in columns)]
        for name, dynamics in found.items()
        for part, logged in dynamics.items()
    ]
    headers = ["run", "samples", "H_T: first -> last log", "H_S", "w_EA"]
    return [AnalysisResult({"dynamics": (draw_dynamics(found), numbers)}, headers, rows)]

"""Figures of t-SNE, and of the loss landscape as contours and as a surface."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from .figures import log_bar, panel_figure, space_out
from .landscape import Landscape
from .separation import MARKED_SHARE, Separation

# Paul Tol's muted colours and two more; with more classes a colour map is used.
CLASS_COLOURS = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933",
    "#DDCC77", "#CC6677", "#882255", "#AA4499", "#BBBBBB",
)  # fmt: skip
MOST_NAMES = 20  # number of classes up to which their names are written
LINE = 0.045  # height of a name as a fraction of the panel's
# Marked samples are larger and have an edge, in the colour of their class.
MARK = {"s": 20, "edgecolors": "black", "linewidths": 0.5}
ENTROPY_MARK, WEIGHT_MARK, BOTH_MARK = "^", "v", "D"


def draw_separations(
    separations: Mapping[str, Separation],
    rows: list[list[str]],
    *,
    names: Sequence[str],
    what: str = "test images",
) -> Figure:
    """Draw t-SNE of each network's features, coloured by class.

    Args:
        separations: network -> its features in the plane.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
        names: class names.
        what: name of the samples, in the plural.
    """
    figure, panels = panel_figure(rows, (3.6, 3.8))
    num_classes = len(names)
    colours = CLASS_COLOURS if num_classes <= len(CLASS_COLOURS) else colormaps["viridis"].colors
    colours = ListedColormap(colours).resampled(max(num_classes, 2))
    for name, axes in panels.items():
        _draw_separation(axes, separations[name], names, colours)
        index = separations[name].index
        distinct = "" if index is None else f"CH {index:.1f}, "
        axes.set_title(f"{name}\n{distinct}top-1 {separations[name].top1:.1f} %")
    share, number = f"{100 * MARKED_SHARE:g} %", len(next(iter(separations.values())).labels)
    first, marks = panels[rows[0][0]], {f"{share} of highest entropy": ENTROPY_MARK}
    if any(separation.highest_weight is not None for separation in separations.values()):
        marks |= {f"{share} of highest $w_{{EA}}$": WEIGHT_MARK, "both": BOTH_MARK}
    handles = [
        first.scatter([], [], marker=mark, facecolors="white", **MARK, label=name)
        for name, mark in marks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        f"t-SNE of the penultimate features of {number} {what},\n"
        "coloured by class; CH: Calinski-Harabasz index of the classes\n"
        "in those features, higher is more distinct",
        fontsize=10,
    )
    return figure


def _draw_separation(
    axes: Axes, separation: Separation, names: Sequence[str], colours: ListedColormap
) -> None:
    x, y = separation.points.numpy().T
    labels = separation.labels.numpy()
    scale = {"cmap": colours, "vmin": 0, "vmax": colours.N}
    dots = {"s": 6, "linewidths": 0, "rasterized": True}  # as vectors the SVG would be large
    axes.scatter(x, y, c=labels, **scale, **dots)
    for mark, marked in _marked(separation).items():
        axes.scatter(x[marked], y[marked], c=labels[marked], marker=mark, **scale, **MARK)
    classes = np.unique(labels)
    half = 0.53 * max(np.ptp(x), np.ptp(y))  # a square, so that panels have the same size
    middle_x, middle_y = (x.max() + x.min()) / 2, (y.max() + y.min()) / 2
    axes.set(xlim=(middle_x - half, middle_x + half), ylim=(middle_y - half, middle_y + half))
    if len(classes) <= MOST_NAMES:
        places = [(np.median(x[labels == i]), np.median(y[labels == i]), names[i]) for i in classes]
        _write_apart(axes, sorted(places, key=lambda place: place[1]), LINE * 2 * half)
    axes.set(xticks=[], yticks=[], aspect="equal")


def _marked(separation: Separation) -> dict[str, np.ndarray]:
    """Return marker -> (N,) bool mask of its samples."""
    entropy = separation.highest_entropy.numpy()
    if separation.highest_weight is None:
        return {ENTROPY_MARK: entropy}
    weight = separation.highest_weight.numpy()
    return {
        ENTROPY_MARK: entropy & ~weight,
        WEIGHT_MARK: weight & ~entropy,
        BOTH_MARK: entropy & weight,
    }


def _write_apart(axes: Axes, places: list[tuple[float, float, str]], distance: float) -> None:
    """Write names at (x, y), in ascending y, moved vertically to be at least `distance` apart."""
    outline = [withStroke(linewidth=2.5, foreground="white")]  # a box would hide the dots
    heights = space_out([y for _, y, _ in places], distance)
    for (x, _, name), y in zip(places, heights, strict=True):
        axes.annotate(name, (x, y), ha="center", va="center", fontsize=8, path_effects=outline)


def draw_contours(
    landscapes: Mapping[str, Landscape], rows: list[list[str]], *, level: float
) -> Figure:
    """Draw contours of each network's loss, with a common colour scale.

    Args:
        landscapes: network -> its landscape.
        rows: rows of panels, see `eakd_det.analysis.figures.panel_rows`.
        level: loss level of Area@level.
    """
    figure, panels = panel_figure(rows, (3.3, 3.5))
    norm = _scale(landscapes)
    steps = np.geomspace(norm.vmin, norm.vmax, 25)
    for name, axes in panels.items():
        landscape = landscapes[name]
        smooth = landscape.smooth()
        losses = smooth.losses.clip(norm.vmin)
        grid = (smooth.coordinates, smooth.coordinates, losses)
        axes.contourf(*grid, levels=steps, norm=norm, cmap="viridis", extend="both")
        if losses.min() < level < losses.max():
            line = axes.contour(*grid, levels=[level], colors="white", linewidths=1.5)
            axes.clabel(line, fmt=f"{level:g}", fontsize=8)
        axes.plot(0, 0, marker="+", color="white", markersize=9)
        axes.set_title(f"{name}\n{_summary(landscape, level)}", fontsize=9)
        axes.set(aspect="equal", xlabel=r"$\alpha$ (filter norms)", ylabel=r"$\beta$")
        _few_ticks(axes, landscape)
    log_bar(figure, panels, norm, "viridis").set_label("cross-entropy (nats, log scale)")
    figure.suptitle(
        f"Loss around each network (+);\nArea@{level:g} is the share inside the line",
        fontsize=10,
    )
    return figure


def draw_surfaces(
    landscapes: Mapping[str, Landscape], rows: list[list[str]], *, level: float
) -> Figure:
    """Draw the loss of each network as a surface; see `draw_contours` for the arguments."""
    figure, panels = panel_figure(rows, (3.6, 3.3), projection="3d")
    norm = _scale(landscapes)
    bar = log_bar(figure, panels, norm, "viridis")
    bar.set_label("cross-entropy (nats, log scale)")
    ticks = bar.get_ticks()
    for name, axes in panels.items():
        landscape = landscapes[name]
        x, y = np.meshgrid(landscape.coordinates, landscape.coordinates)
        losses = landscape.losses.clip(norm.vmin, norm.vmax)
        colours = colormaps["viridis"](norm(losses))
        z = np.log10(losses)  # matplotlib has no logarithmic axis in 3-D
        options = {"rstride": 1, "cstride": 1, "linewidth": 0.3, "edgecolor": "0.3"}
        # Shading would change the colours from those of the bar.
        axes.plot_surface(x, y, z, facecolors=colours, shade=False, rasterized=True, **options)
        axes.set_zlim(np.log10(norm.vmin), np.log10(norm.vmax))
        axes.set_zticks(np.log10(ticks), [f"{tick:g}" for tick in ticks], fontsize=7)
        axes.set_title(f"{name}\n{_summary(landscape, level)}", fontsize=9)
        axes.set_xlabel(r"$\alpha$", labelpad=-8)
        axes.set_ylabel(r"$\beta$", labelpad=-8)
        axes.set_zlabel("cross-entropy", labelpad=-4, fontsize=8)
        axes.tick_params(axis="both", labelsize=7, pad=-2)
        axes.set_box_aspect(None, zoom=0.92)  # room for the label of z
        _few_ticks(axes, landscape)
    figure.suptitle("Loss around each network", fontsize=10)
    return figure


def _scale(landscapes: Mapping[str, Landscape]) -> LogNorm:
    """Common scale of the losses, from the lowest above 0, as which a loss of 0 is drawn."""
    losses = np.concatenate([landscape.losses.ravel() for landscape in landscapes.values()])
    low, high = losses[losses > 0].min(), losses.max()
    return LogNorm(low, high if high > low else 2 * low)


def _few_ticks(axes: Axes, landscape: Landscape) -> None:
    ends = [landscape.coordinates[0], 0, landscape.coordinates[-1]]
    axes.set(xticks=ends, yticks=ends)


def _summary(landscape: Landscape, level: float) -> str:
    variance, area = landscape.variance, landscape.area_below(level)
    shown = f"{variance:.3g}" if variance < 1000 else f"{variance:.0f}"
    return rf"$\sigma^2$ {shown}, Area@{level:g} {area:.3f}"

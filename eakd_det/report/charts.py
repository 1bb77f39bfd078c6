"""Charts of a report: single panels that a phone can show, drawn for light and for dark pages."""

import io
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SIZE = (4.4, 2.8)  # inches
SCHEMES = {
    "light": {"ink": "#1f2328", "line": "#d8dee4"},
    "dark": {"ink": "#e6edf3", "line": "#3d444d"},
}
# The darkest of the runs' colours, and its light sister, which change places on a dark page.
SISTERS = {"#0072b2": "#56b4e9", "#56b4e9": "#0072b2"}


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: above it.
        text: what it shows, in words, for those who do not see it.
        light, dark: data URIs of SVGs without a background.
    """

    title: str
    text: str
    light: str
    dark: str


def make_chart(title: str, text: str, draw: Callable[[Axes], None]) -> Chart:
    """Draw a chart in both schemes.

    Args:
        draw: draws on axes whose text and lines have the scheme's colours; called for each.
    """
    light, dark = (_draw(draw, **colours) for colours in SCHEMES.values())
    dark = re.sub("|".join(SISTERS), lambda found: SISTERS[found[0]], dark)
    return Chart(title, text, *(data_uri("image/svg+xml", x.encode()) for x in (light, dark)))


def _draw(draw: Callable[[Axes], None], ink: str, line: str) -> str:
    settings = {
        **{f"{name}.color": ink for name in ("text", "xtick", "ytick")},
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "grid.color": line,
        "font.size": 12,
        "svg.fonttype": "none",  # the reader's own fonts
        "svg.hashsalt": "report",  # the same chart gives the same file
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.grid(axis="y", color=line)
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue().decode()


def data_uri(media_type: str, content: bytes) -> str:
    """A file as the address of itself."""
    return f"data:{media_type};base64,{b64encode(content).decode()}"

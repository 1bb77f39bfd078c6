"""Charts of a report: single panels that fit a phone, drawn for light and dark pages."""

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
# The darkest colour of a run and its light counterpart, which are swapped on a dark page.
SISTERS = {"#0072b2": "#56b4e9", "#56b4e9": "#0072b2"}


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: title above the chart.
        text: alternative text that describes the chart.
        light, dark: data URIs of SVGs without a background.
    """

    title: str
    text: str
    light: str
    dark: str


def make_chart(title: str, text: str, draw: Callable[[Axes], None]) -> Chart:
    """Draw a chart in both schemes.

    Args:
        title, text: see `Chart`.
        draw: function that draws on axes with the colours of a scheme; called for each scheme.
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
        "svg.fonttype": "none",  # text in the reader's own fonts
        "svg.hashsalt": "report",  # deterministic ids
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
    """Encode the content of a file as a data URI."""
    return f"data:{media_type};base64,{b64encode(content).decode()}"

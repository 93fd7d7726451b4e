"""Style and colours of all plots, and a figure as SVG text.

Drawing uses matplotlib without a display and without global state. Colours are those of Okabe and
Ito (2008), which colour-blind readers can distinguish.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

__all__ = [
    "CHOSEN",
    "COLOURS",
    "FAILED",
    "GREY",
    "INK",
    "STYLE",
    "Plot",
    "draw_plot",
    "to_svg",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
CHOSEN, FAILED = "#009E73", "#B00020"
GREY, INK = "#666666", "#1C2430"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hpc-llm",  # the same data gives the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Plot:
    """A plot: its file name without suffix, its title, its caption, and the SVG."""

    name: str
    title: str
    caption: str
    svg: str


def draw_plot(name: str, title: str, caption: str, paint: Callable[[Any], bool]) -> Plot | None:
    """Return the plot that `paint(figure)` draws; None if it returns False for lack of data."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        if not paint(figure):
            return None
        svg = to_svg(figure)
    return Plot(name, title, caption, svg[svg.index("<svg") :])


def to_svg(figure: Any) -> str:
    """Return a figure as SVG, the same bytes for the same data."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()

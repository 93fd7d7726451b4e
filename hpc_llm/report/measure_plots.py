"""One plot for each kind of measure: bars for each point of the recipe, with 95 % intervals."""

import re
from functools import partial
from typing import Any

from hpc_llm.report.drawing import COLOURS, INK, Plot, draw_plot
from hpc_llm.report.measures import Measures, axis_label, groups, points_of, whiskers

__all__ = ["measure_plots"]

GROUP_WIDTH = 0.76  # of the bars of one point; points are 1 apart
CAPTION = "Held-out text, after each stage. Bars are the values, whiskers their 95 % intervals."


def measure_plots(measures: Measures) -> list[Plot]:
    """Draw the measures named `KIND/...` together, for each kind that has a value."""
    plots = []
    for kind, found in groups(measures):
        name = "measure-" + re.sub(r"[^\w-]+", "-", kind)
        title = f"{kind}, {axis_label(next(iter(found.values())))}"
        if plot := draw_plot(name, title, CAPTION, partial(_paint, found=found)):
            plots.append(plot)
    return plots


def _paint(figure: Any, found: Measures) -> bool:
    points, axes = points_of(found), figure.add_subplot()
    width = GROUP_WIDTH / len(found)
    for number, (name, column) in enumerate(found.items()):
        known = {p: m for p, m in column.items() if m["value"] is not None}
        if not known:
            continue
        offset = (number - (len(found) - 1) / 2) * width
        bars = axes.bar(
            [points.index(point) + offset for point in known],
            [measure["value"] for measure in known.values()],
            yerr=list(zip(*map(whiskers, known.values()), strict=True)),
            width=0.95 * width,
            color=COLOURS[number % len(COLOURS)],
            ecolor=INK,
            capsize=2,
            label=name,
        )
        labels = [f"{measure['value']:.2f}" for measure in known.values()]
        axes.bar_label(bars, labels, fontsize=8, padding=2)
    axes.set_xticks(range(len(points)), points, fontsize=10 if len(points) < 6 else 8)
    axes.set(ylabel=axis_label(next(iter(found.values()))))
    axes.grid(visible=False, axis="x")
    if axes.patches:
        figure.legend(loc="outside upper center", ncols=min(4, len(found)))
    return bool(axes.patches)

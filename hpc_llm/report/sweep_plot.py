"""The picture of a sweep: bits per byte against the swept values, failed trials crossed out.

One swept key gives a curve, two give a curve for each value of the second; more, or none, a bar for
each trial, the best on top. Whiskers are the 95 % intervals of the evaluation.
"""

from collections.abc import Sequence
from io import StringIO
from typing import Any

from hpc_llm.report.plots import GREY, SOURCE, STAGE_COLOURS, STYLE, TARGET
from hpc_llm.report.sweep import TrialRow, short_names
from hpc_llm.rundir import Trial

__all__ = ["draw_sweep"]

FAILED = "#B00020"
LOG_FROM = 8.0  # times the smallest value is the largest, from which on the axis is logarithmic


def draw_sweep(name: str, keys: Sequence[str], rows: Sequence[TrialRow]) -> str | None:
    """Return the picture of the sweep `name` as SVG; None while no trial has measured or failed."""
    import matplotlib
    from matplotlib.figure import Figure

    shown = [row for row in rows if row.target is not None or row.outcome == "failed"]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        if len(keys) in (1, 2):
            _paint_curves(figure, keys, shown)
        else:
            _paint_bars(figure, keys, shown)
        figure.suptitle(f"{name}: bits per byte of held-out text (less is better)", fontsize=11)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _paint_curves(figure: Any, keys: Sequence[str], rows: Sequence[TrialRow]) -> None:
    """Draw a panel for each language that was measured."""
    sides = [s for s in ("target", "source") if any(_value(row, s) is not None for row in rows)]
    sides = sides or ["target"]
    panels = figure.subplots(len(sides), sharex=True, squeeze=False)[:, 0]
    places, ticks = _places([row.trial.values[keys[0]] for row in rows])
    series = _ordered({row.trial.values[keys[1]] for row in rows}) if len(keys) == 2 else [None]
    names = short_names(keys)
    for axes, side in zip(panels, sides, strict=True):
        for number, value in enumerate(series):
            own = [row for row in rows if value is None or row.trial.values[keys[1]] == value]
            colour = STAGE_COLOURS[number % len(STAGE_COLOURS)]
            if value is None:
                colour = TARGET if side == "target" else SOURCE
            label = None if value is None else f"{names[1]}={value}"
            _paint_curve(axes, [(places[r.trial.values[keys[0]]], r) for r in own], side, colour)
            _cross_out(
                axes,
                [places[r.trial.values[keys[0]]] for r in own if _failed(r)],
                None if value is None else number,
            )
            axes.plot([], [], "o-", color=colour, label=label)
        axes.set(ylabel=f"{side} text")
        _set_ticks(axes, ticks, list(places.values()))
    if any(map(_failed, rows)):
        panels[0].plot([], [], "x", color=FAILED if series == [None] else GREY, label="failed")
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    panels[-1].set(xlabel=names[0])


def _paint_curve(axes: Any, points: list[tuple[float, TrialRow]], side: str, colour: str) -> None:
    """Draw the finished trials of one curve, and unfinished ones hollow."""
    points = sorted(points, key=lambda point: point[0])
    done = [(x, row) for x, row in points if row.outcome == "done" and _value(row, side)]
    axes.plot([x for x, _ in done], [_value(row, side) for _, row in done], color=colour, lw=1.2)
    for x, row in points:
        value = _value(row, side)
        if value is not None and not _failed(row):
            fill = colour if row.outcome == "done" else "none"
            axes.errorbar(
                [x], [value], yerr=_whiskers(row, side), fmt="o", color=colour, mfc=fill, capsize=2
            )


def _cross_out(axes: Any, places: list[float], number: int | None) -> None:
    """Put crosses for the failed trials of one curve at the foot of the panel."""
    colour = FAILED if number is None else STAGE_COLOURS[number % len(STAGE_COLOURS)]
    feet = [0.04 + 0.06 * (number or 0)] * len(places)
    axes.plot(places, feet, "x", color=colour, ms=8, mew=2, transform=axes.get_xaxis_transform())


def _failed(row: TrialRow) -> bool:
    return row.outcome == "failed"


def _paint_bars(figure: Any, keys: Sequence[str], rows: Sequence[TrialRow]) -> None:
    """Draw a bar for each trial, the fewest bits on top and failed trials at the bottom."""
    last = float("inf")
    ranked = sorted(
        rows, key=lambda row: last if row.target is None or _failed(row) else row.target
    )
    figure.set_size_inches(6.4, 1.4 + 0.3 * len(ranked))
    axes = figure.add_subplot()
    for place, row in enumerate(ranked):
        if _failed(row) or row.target is None:
            axes.text(0, place, f" {row.state}", color=FAILED, va="center", fontsize=8)
            continue
        colour = TARGET if row.outcome == "done" else GREY
        axes.barh(
            [place],
            [row.target],
            xerr=_whiskers(row, "target"),
            color=colour,
            height=0.7,
            capsize=2,
        )
        axes.text(0, place, f" {row.target:.3f}", color="white", va="center", fontsize=8)
    labels = [_label(row.trial, keys) for row in ranked]
    axes.set_yticks(range(len(ranked)), labels, fontsize=8)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel="target text, bits per byte")


def _label(trial: Trial, keys: Sequence[str]) -> str:
    pairs = zip(short_names(keys), keys, strict=True)
    return f"{trial.number}: " + " ".join(f"{name}={trial.values[key]}" for name, key in pairs)


def _value(row: TrialRow, side: str) -> float | None:
    figures = row.figures.target if side == "target" else row.figures.source
    return figures.get("value")


def _whiskers(row: TrialRow, side: str) -> list[list[float]] | None:
    """Return how far the interval reaches to both sides; None where it is not known."""
    figures = row.figures.target if side == "target" else row.figures.source
    value, low, high = (figures.get(key) for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _ordered(texts: set[str]) -> list[str]:
    """Return values by their size; those that are no numbers by the alphabet, behind them."""
    last = float("inf")
    return sorted(texts, key=lambda text: (last if (n := _number(text)) is None else n, text))


def _places(texts: list[str]) -> tuple[dict[str, float], list[str]]:
    """Return where values lie on the axis: numbers where they are, other values side by side."""
    ordered = _ordered(set(texts))
    numbers = [_number(text) for text in ordered]
    if any(number is None for number in numbers):
        return {text: float(place) for place, text in enumerate(ordered)}, ordered
    return {t: n for t, n in zip(ordered, numbers, strict=True) if n is not None}, ordered


def _set_ticks(axes: Any, texts: list[str], places: list[float]) -> None:
    """Put a tick at each value; far-apart positive ones on a logarithmic axis."""
    numbers = all(_number(text) is not None for text in texts)
    if numbers and min(places) > 0 and max(places) >= LOG_FROM * min(places):
        axes.set_xscale("log")
    axes.set_xticks(places, texts)
    axes.minorticks_off()

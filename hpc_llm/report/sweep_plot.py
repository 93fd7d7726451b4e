"""The plot of a sweep: measures against the swept values, failed trials crossed out.

One swept key gives a curve, two give a curve for each value of the second, with a panel for each
measure; more, or none, a bar of the main measure for each trial, the best on top. Whiskers are the
95 % intervals of the evaluation.
"""

from collections.abc import Sequence
from typing import Any

from hpc_llm.report.drawing import COLOURS, FAILED, GREY, STYLE, to_svg
from hpc_llm.report.measures import axis_label, whiskers
from hpc_llm.report.sweep import TrialRow, main_measure, measure_names, short_names
from hpc_llm.rundir import Trial

__all__ = ["draw_sweep"]

LOG_FROM = 8.0  # largest value / smallest value from which the axis is logarithmic


def draw_sweep(name: str, keys: Sequence[str], rows: Sequence[TrialRow]) -> str | None:
    """Return the plot of the sweep `name` as SVG; None before any trial is evaluated or failed."""
    import matplotlib
    from matplotlib.figure import Figure

    main = main_measure(rows)
    shown = [row for row in rows if row.value(main) is not None or row.outcome == "failed"]
    if not shown:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.6), layout="constrained")
        if len(keys) in (1, 2):
            _paint_curves(figure, keys, shown)
        else:
            _paint_bars(figure, keys, shown, main or "")
        figure.suptitle(f"{name}: measures on held-out text", fontsize=11)
        return to_svg(figure)


def _paint_curves(figure: Any, keys: Sequence[str], rows: Sequence[TrialRow]) -> None:
    """Draw a panel for each measure."""
    measures = measure_names(rows) or [""]
    figure.set_size_inches(6.4, max(4.6, 2.3 * len(measures)))
    panels = figure.subplots(len(measures), sharex=True, squeeze=False)[:, 0]
    places, ticks = _places([row.trial.values[keys[0]] for row in rows])
    series = _ordered({row.trial.values[keys[1]] for row in rows}) if len(keys) == 2 else [None]
    names = short_names(keys)
    for panel, (axes, measure) in enumerate(zip(panels, measures, strict=True)):
        for number, value in enumerate(series):
            own = [row for row in rows if value is None or row.trial.values[keys[1]] == value]
            colour = COLOURS[(panel if value is None else number) % len(COLOURS)]
            label = None if value is None else f"{names[1]}={value}"
            _paint_curve(axes, [(places[r.trial.values[keys[0]]], r) for r in own], measure, colour)
            _cross_out(
                axes,
                [places[r.trial.values[keys[0]]] for r in own if _failed(r)],
                None if value is None else number,
            )
            axes.plot([], [], "o-", color=colour, label=label)
        axes.set_ylabel(_label_of(measure, rows), fontsize=8)
        _set_ticks(axes, ticks, list(places.values()))
    if any(map(_failed, rows)):
        panels[0].plot([], [], "x", color=FAILED if series == [None] else GREY, label="failed")
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8)
    panels[-1].set(xlabel=names[0])


def _paint_curve(
    axes: Any, points: list[tuple[float, TrialRow]], measure: str, colour: str
) -> None:
    """Draw the finished trials of one curve; unfinished ones are hollow and not connected."""
    points = sorted(points, key=lambda point: point[0])
    done = [(x, row.value(measure)) for x, row in points if row.outcome == "done"]
    known = [(x, value) for x, value in done if value is not None]
    axes.plot([x for x, _ in known], [value for _, value in known], color=colour, lw=1.2)
    for x, row in points:
        value = row.value(measure)
        if value is not None and not _failed(row):
            fill = colour if row.outcome == "done" else "none"
            axes.errorbar(
                [x], [value], yerr=_ends(row, measure), fmt="o", color=colour, mfc=fill, capsize=2
            )


def _cross_out(axes: Any, places: list[float], number: int | None) -> None:
    """Put crosses for the failed trials of one curve at the bottom of the panel."""
    colour = FAILED if number is None else COLOURS[number % len(COLOURS)]
    feet = [0.04 + 0.06 * (number or 0)] * len(places)
    axes.plot(places, feet, "x", color=colour, ms=8, mew=2, transform=axes.get_xaxis_transform())


def _failed(row: TrialRow) -> bool:
    return row.outcome == "failed"


def _paint_bars(figure: Any, keys: Sequence[str], rows: Sequence[TrialRow], main: str) -> None:
    """Draw a bar for each trial, the best on top and failed trials at the bottom."""
    ranked = sorted(rows, key=lambda row: _rank(row, main))
    figure.set_size_inches(6.4, 1.4 + 0.3 * len(ranked))
    axes = figure.add_subplot()
    for place, row in enumerate(ranked):
        value = row.value(main)
        if _failed(row) or value is None:
            axes.text(0, place, f" {row.state}", color=FAILED, va="center", fontsize=8)
            continue
        colour = COLOURS[0] if row.outcome == "done" else GREY
        axes.barh([place], [value], xerr=_ends(row, main), color=colour, height=0.7, capsize=2)
        axes.text(0, place, f" {value:.3f}", color="white", va="center", fontsize=8)
    labels = [_label(row.trial, keys) for row in ranked]
    axes.set_yticks(range(len(ranked)), labels, fontsize=8)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=_label_of(main, rows).replace("\n", ", "))


def _rank(row: TrialRow, main: str) -> float:
    """Return the place of a trial among the bars: smaller is better, failed trials last."""
    value = row.value(main)
    if value is None or _failed(row):
        return float("inf")
    return -value if row.results.measures[main]["better"] == "higher" else value


def _label_of(measure: str, rows: Sequence[TrialRow]) -> str:
    """Return the label of an axis: the measure, its unit and its direction."""
    found = [row.results.measures[measure] for row in rows if measure in row.results.measures]
    return f"{measure}\n{axis_label({'': found[0]})}" if found else ""


def _label(trial: Trial, keys: Sequence[str]) -> str:
    pairs = zip(short_names(keys), keys, strict=True)
    return f"{trial.number}: " + " ".join(f"{name}={trial.values[key]}" for name, key in pairs)


def _ends(row: TrialRow, measure: str) -> list[list[float]]:
    """Return the whiskers of one trial as errorbar takes them, (2, 1)."""
    return [[end] for end in whiskers(row.results.measures[measure])]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _ordered(texts: set[str]) -> list[str]:
    """Return values in ascending order; text after numbers, alphabetically."""
    last = float("inf")
    return sorted(texts, key=lambda text: (last if (n := _number(text)) is None else n, text))


def _places(texts: list[str]) -> tuple[dict[str, float], list[str]]:
    """Return the positions of values on the axis: numbers at their value, text side by side."""
    ordered = _ordered(set(texts))
    numbers = [_number(text) for text in ordered]
    if any(number is None for number in numbers):
        return {text: float(place) for place, text in enumerate(ordered)}, ordered
    return {t: n for t, n in zip(ordered, numbers, strict=True) if n is not None}, ordered


def _set_ticks(axes: Any, texts: list[str], places: list[float]) -> None:
    """Put a tick at each value; the axis is logarithmic where positive values span a wide range."""
    numbers = all(_number(text) is not None for text in texts)
    if numbers and min(places) > 0 and max(places) >= LOG_FROM * min(places):
        axes.set_xscale("log")
    axes.set_xticks(places, texts)
    axes.minorticks_off()

"""Plots of training, the merging factor and cost, each drawn by one function.

A plot whose data is missing is not drawn.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from hpc_llm.report.drawing import CHOSEN, COLOURS, GREY, Plot, draw_plot
from hpc_llm.report.gather import RunData, training
from hpc_llm.report.text import compact, scientific

__all__ = ["draw", "loss_curves", "pareto_front"]

MOST_POINTS = 600  # of one curve; longer curves are averaged


def draw(data: RunData) -> list[Plot]:
    """Draw every plot for which `data` has values."""
    plots = []
    for name, title, caption, paint in PLOTS:
        if plot := draw_plot(name, title, caption, partial(paint, data=data)):
            plots.append(plot)
    return plots


def loss_curves(
    events: list[dict[str, Any]], metric: str = "train/loss"
) -> dict[str, tuple[list[float], list[float]]]:
    """Return (tokens, loss in nats per token) of each stage; tokens accumulate over the stages.

    Or another `metric` that was measured during the stages.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    before, farthest = 0.0, 0.0
    for event in events:
        loss = (event.get("metrics") or {}).get(metric)
        if loss is None or event.get("tokens") is None:
            continue
        if event["stage"] not in curves:
            curves[event["stage"]], before = ([], []), farthest
        tokens, losses = curves[event["stage"]]
        farthest = before + event["tokens"]
        tokens.append(farthest)
        losses.append(loss)
    return {stage: (_thin(x), _thin(y)) for stage, (x, y) in curves.items()}


def _thin(values: list[float]) -> list[float]:
    """Average neighbours until at most `MOST_POINTS` remain."""
    size = -(-len(values) // MOST_POINTS)
    groups = [values[i : i + size] for i in range(0, len(values), size or 1)]
    return [sum(group) / len(group) for group in groups]


def _paint_loss(figure: Any, data: RunData) -> bool:
    return _paint_curves(figure, loss_curves(data.events), "training loss, nats per token")


def _paint_meter(figure: Any, data: RunData) -> bool:
    curves = loss_curves(data.events, "forgetting/delta_bpb")
    return _paint_curves(figure, curves, "source text, bits per byte above the base")


def _paint_curves(
    figure: Any, curves: dict[str, tuple[list[float], list[float]]], label: str
) -> bool:
    """Draw a curve for each stage over the tokens of all stages."""
    if not curves:
        return False
    axes = figure.add_subplot()
    for number, (stage, (tokens, loss)) in enumerate(curves.items()):
        mark = "o" if len(tokens) == 1 else None
        axes.plot(
            tokens,
            loss,
            color=COLOURS[number % len(COLOURS)],
            label=stage,
            marker=mark,
            lw=1.6,
        )
    axes.set(xlabel="training tokens, all stages", ylabel=label)
    axes.xaxis.set_major_formatter(lambda value, _: compact(value))
    axes.legend(title="stage")
    return True


def _column(curve: list[dict[str, Any]], key: str) -> list[float]:
    """Return one value of the points of a curve; NaN if unknown."""
    return [float("nan") if point[key] is None else point[key] for point in curve]


def _curve(data: RunData) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the curve of phi, ascending, and the languages that it has values for."""
    curve = sorted(data.correction.get("curve") or [], key=lambda point: point["phi"])
    keys = [key for key in (curve[0] if curve else {}) if key.endswith("_bpb")]
    known = [key for key in keys if any(point[key] is not None for point in curve)]
    return curve, [key.removesuffix("_bpb") for key in known]


def _paint_phi(figure: Any, data: RunData) -> bool:
    curve, languages = _curve(data)
    if not languages:
        return False
    figure.set_size_inches(6.4, 2.3 * max(2, len(languages)))
    panels = figure.subplots(len(languages), sharex=True, squeeze=False)[:, 0]
    phi, chosen = _column(curve, "phi"), data.correction["phi"] or {}
    for number, (axes, side) in enumerate(zip(panels, languages, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        known = [point for point in curve if point[f"{side}_bpb"] is not None]
        low, high = _column(known, f"{side}_low"), _column(known, f"{side}_high")
        axes.fill_between(_column(known, "phi"), low, high, color=colour, alpha=0.18, lw=0)
        label = f"{side} text, with 95 % interval"
        value = _column(known, f"{side}_bpb")
        axes.plot(_column(known, "phi"), value, "o-", color=colour, ms=4, label=label)
        if number == 0:
            objective = _column(curve, "objective")
            axes.plot(phi, objective, "--", color=GREY, lw=1.2, label="objective J")
        _mark_chosen(axes, chosen)
        axes.set(ylabel="bits per byte")
        axes.legend(fontsize=8)
    panels[-1].set(xlabel="merging factor phi")
    return True


def _mark_chosen(axes: Any, chosen: dict[str, Any]) -> None:
    """Draw the chosen phi, and shade the interval of the best one."""
    if chosen:
        axes.axvspan(chosen["low"], chosen["high"], color=CHOSEN, alpha=0.15, lw=0)
        axes.axvline(chosen["value"], color=CHOSEN, lw=1.5, label=f"phi = {chosen['value']:.2f}")


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (source, target) points that no other beats in both, ascending in source."""
    front: list[tuple[float, float]] = []
    for source, target in sorted(points):
        if not front or target < front[-1][1]:
            front.append((source, target))
    return front


def _paint_pareto(figure: Any, data: RunData) -> bool:
    curve, languages = _curve(data)
    if len(languages) < 2:
        return False
    learnt, kept = languages[:2]
    every = {p["phi"]: (p[f"{kept}_bpb"], p[f"{learnt}_bpb"]) for p in curve}
    places = {phi: place for phi, place in every.items() if None not in place}
    points = list(places.values())
    if len(points) < 2:
        return False
    axes = figure.add_subplot()
    axes.plot(*zip(*pareto_front(points), strict=True), color=GREY, lw=1.2, label="Pareto front")
    axes.scatter(*zip(*points, strict=True), color=COLOURS[0], s=24, zorder=3, label="one phi each")
    if chosen := data.correction["phi"]:
        nearest = min(places, key=lambda phi: abs(phi - chosen["value"]))
        star = places[nearest]
        axes.scatter(*star, marker="*", s=170, color=CHOSEN, zorder=4, label="chosen")
    for point in curve:
        if point["phi"] in places and point["from"] != "golden":  # these are close together
            place, label = places[point["phi"]], f"{point['phi']:g}"
            axes.annotate(label, place, xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel=f"{kept} text, bits per byte", ylabel=f"{learnt} text, bits per byte")
    axes.legend(fontsize=8)
    return True


def _paint_cost(figure: Any, data: RunData) -> bool:
    seconds = {stage: record["seconds"] or 0 for stage, record in data.records.items()}
    flops = {stage: result["flops"] or 0 for stage, result in training(data).items()}
    stages = list(seconds)
    if not any(seconds.values()):
        return False
    figure.set_size_inches(6.4, 1.3 + 0.28 * len(stages))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, colour, show in (
        (left, seconds, GREY, compact),
        (right, flops, COLOURS[0], scientific),
    ):
        widths = [values.get(stage, 0) for stage in stages]
        bars = axes.barh(stages, widths, color=colour, height=0.7)
        labels = [show(width) if width else "" for width in widths]
        axes.bar_label(bars, labels, fontsize=8, padding=3)
        axes.set_xlim(0, 1.3 * (max(widths) or 1))
        axes.set_xticks([])
        axes.grid(visible=False)
    left.invert_yaxis()
    left.set(xlabel="seconds")
    right.set(xlabel="training FLOPs")
    return True


PLOTS: tuple[tuple[str, str, str, Callable[..., bool]], ...] = (
    (
        "loss",
        "Training loss",
        "Nats per token: curves compare only between stages with the same tokenizer.",
        _paint_loss,
    ),
    (
        "meter",
        "Forgetting during training",
        "Bits per byte of source text, minus those of the base model on the same tune documents.",
        _paint_meter,
    ),
    (
        "phi",
        "Merging factor",
        "The adapter is scaled by phi, W = W₀ + phi · (α/r) · BA, and evaluated on tune documents, "
        "which are used for nothing else. Shaded: 95 % intervals; green: the chosen value, and the "
        "interval of the best factor, which need not contain it.",
        _paint_phi,
    ),
    (
        "pareto",
        "Learning against forgetting",
        "Each point is one phi (its value beside it). Lower left is better.",
        _paint_pareto,
    ),
    (
        "cost",
        "Time and FLOPs of each stage",
        "Seconds of every finished stage; exact FLOPs of the training stages.",
        _paint_cost,
    ),
)

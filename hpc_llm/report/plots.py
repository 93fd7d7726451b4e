"""The pictures of the report, each drawn by one function and returned as SVG text.

A picture whose data is missing is not drawn. Drawing uses matplotlib without a display and without
global state. Colours are those of Okabe and Ito (2008), which colour-blind readers tell apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from hpc_llm.report.gather import RunData, bpb_stages, training
from hpc_llm.report.text import compact, scientific

__all__ = ["Plot", "draw", "loss_curves", "pareto_front"]

TARGET, SOURCE, CHOSEN = "#0072B2", "#D55E00", "#009E73"
STAGE_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00")
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
MOST_POINTS = 600  # of one curve; longer ones are averaged


@dataclass(frozen=True)
class Plot:
    """A picture: its file name without suffix, its title, what it shows, and the SVG."""

    name: str
    title: str
    caption: str
    svg: str


def draw(data: RunData) -> list[Plot]:
    """Draw every picture for which `data` has figures."""
    import matplotlib
    from matplotlib.figure import Figure

    plots = []
    with matplotlib.rc_context(STYLE):
        for name, title, caption, paint in PICTURES:
            figure = Figure(figsize=(6.4, 3.6), layout="constrained")
            if paint(figure, data):
                text = StringIO()
                figure.savefig(text, format="svg", metadata={"Date": None})
                svg = text.getvalue()
                plots.append(Plot(name, title, caption, svg[svg.index("<svg") :]))
    return plots


def loss_curves(events: list[dict[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Return (tokens, loss in nats per token) of each stage; tokens count on over the stages."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    before, farthest = 0.0, 0.0
    for event in events:
        loss = (event.get("metrics") or {}).get("train/loss")
        if event["event"] != "train" or loss is None or event.get("tokens") is None:
            continue
        if event["stage"] not in curves:
            curves[event["stage"]], before = ([], []), farthest
        tokens, losses = curves[event["stage"]]
        farthest = before + event["tokens"]
        tokens.append(farthest)
        losses.append(loss)
    return {stage: (_thin(x), _thin(y)) for stage, (x, y) in curves.items()}


def _thin(values: list[float]) -> list[float]:
    """Average neighbours until at most `MOST_POINTS` are left."""
    size = -(-len(values) // MOST_POINTS)
    groups = [values[i : i + size] for i in range(0, len(values), size or 1)]
    return [sum(group) / len(group) for group in groups]


def _paint_loss(figure: Any, data: RunData) -> bool:
    curves = loss_curves(data.events)
    if not curves:
        return False
    axes = figure.add_subplot()
    for number, (stage, (tokens, loss)) in enumerate(curves.items()):
        mark = "o" if len(tokens) == 1 else None
        axes.plot(
            tokens,
            loss,
            color=STAGE_COLOURS[number % len(STAGE_COLOURS)],
            label=stage,
            marker=mark,
            lw=1.6,
        )
    axes.set(xlabel="training tokens, all stages", ylabel="training loss, nats per token")
    axes.xaxis.set_major_formatter(lambda value, _: compact(value))
    axes.legend(title="stage")
    return True


def _paint_bpb(figure: Any, data: RunData) -> bool:
    stages = bpb_stages(data.summary)
    axes = figure.add_subplot()
    for number, (language, colour) in enumerate((("target", TARGET), ("source", SOURCE))):
        bpb = [(i, stage, both[number]) for i, (stage, both) in enumerate(stages.items())]
        known = [(i, stage, value) for i, stage, value in bpb if value is not None]
        if not known:
            continue
        values = [value for _, _, value in known]
        whiskers = [_whiskers(data, stage, language, value) for _, stage, value in known]
        bars = axes.bar(
            [i + (number - 0.5) * 0.38 for i, _, _ in known],
            values,
            yerr=list(zip(*whiskers, strict=True)),
            width=0.36,
            color=colour,
            ecolor=INK,
            label=f"{language} text",
        )
        axes.bar_label(bars, [f"{value:.2f}" for value in values], fontsize=8, padding=2)
    axes.set_xticks(range(len(stages)), list(stages), fontsize=10 if len(stages) < 6 else 8)
    axes.set(ylabel="bits per byte (less is better)")
    axes.grid(visible=False, axis="x")
    if axes.patches:
        figure.legend(loc="outside upper center", ncols=2)
    return bool(axes.patches)


def _whiskers(data: RunData, stage: str, language: str, value: float) -> tuple[float, float]:
    """Return how far the interval reaches below and above a bar; 0 where it is not known."""
    known = data.result(f"evaluate/{stage}").get(language) or {}
    low, high = known.get("low"), known.get("high")
    below = 0.0 if low is None else max(0.0, value - low)
    return below, 0.0 if high is None else max(0.0, high - value)


def _column(curve: list[dict[str, Any]], key: str) -> list[float]:
    """Return one figure of the points of a curve; NaN where it is not known."""
    return [float("nan") if point.get(key) is None else point[key] for point in curve]


def _paint_phi(figure: Any, data: RunData) -> bool:
    curve = sorted(data.correction.get("curve") or [], key=lambda point: point["phi"])
    figure.set_size_inches(6.4, 4.6)
    sides = [("target", TARGET), ("source", SOURCE)]
    sides = [s for s in sides if any(p.get(f"{s[0]}_bpb") is not None for p in curve)]
    if not sides:
        return False
    panels = figure.subplots(len(sides), sharex=True, squeeze=False)[:, 0]
    phi, chosen = _column(curve, "phi"), data.correction.get("phi") or {}
    for axes, (side, colour) in zip(panels, sides, strict=True):
        low, high = _column(curve, f"{side}_low"), _column(curve, f"{side}_high")
        axes.fill_between(phi, low, high, color=colour, alpha=0.18, lw=0)
        label = f"{side} text, with its interval"
        axes.plot(phi, _column(curve, f"{side}_bpb"), "o-", color=colour, ms=4, label=label)
        if side == "target" and any(p.get("objective") is not None for p in curve):
            objective = _column(curve, "objective")
            axes.plot(phi, objective, "--", color=GREY, lw=1.2, label="objective J")
        _mark_chosen(axes, chosen)
        axes.set(ylabel="bits per byte")
        axes.legend(fontsize=8)
    panels[-1].set(xlabel="merging factor phi")
    return True


def _mark_chosen(axes: Any, chosen: dict[str, Any]) -> None:
    """Shade the interval of the chosen phi and draw its value."""
    if chosen.get("low") is not None and chosen.get("high") is not None:
        axes.axvspan(chosen["low"], chosen["high"], color=CHOSEN, alpha=0.15, lw=0)
    if chosen.get("value") is not None:
        axes.axvline(chosen["value"], color=CHOSEN, lw=1.5, label=f"phi = {chosen['value']:.2f}")


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (source, target) points that no other beats in both, by rising source."""
    front: list[tuple[float, float]] = []
    for source, target in sorted(points):
        if not front or target < front[-1][1]:
            front.append((source, target))
    return front


def _paint_pareto(figure: Any, data: RunData) -> bool:
    curve = sorted(data.correction.get("curve") or [], key=lambda point: point["phi"])
    curve = [p for p in curve if p.get("source_bpb") is not None]
    points = [(p["source_bpb"], p["target_bpb"]) for p in curve]
    if len(points) < 2:
        return False
    axes = figure.add_subplot()
    axes.plot(*zip(*pareto_front(points), strict=True), color=GREY, lw=1.2, label="Pareto front")
    axes.scatter(*zip(*points, strict=True), color=TARGET, s=24, zorder=3, label="one phi each")
    value = (data.correction.get("phi") or {}).get("value")
    if value is not None:
        nearest = min(curve, key=lambda p: abs(p["phi"] - value))
        place = (nearest["source_bpb"], nearest["target_bpb"])
        axes.scatter(*place, marker="*", s=170, color=CHOSEN, zorder=4, label="chosen")
    for point in curve:
        if point.get("from") != "golden":  # these stand close together
            place = (point["source_bpb"], point["target_bpb"])
            axes.annotate(
                f"{point['phi']:g}", place, xytext=(5, 4), textcoords="offset points", fontsize=8
            )
    axes.set(xlabel="source text, bits per byte", ylabel="target text, bits per byte")
    axes.legend(fontsize=8)
    return True


def _paint_cost(figure: Any, data: RunData) -> bool:
    seconds = {stage: record.get("seconds") or 0 for stage, record in data.records.items()}
    flops = {stage: result.get("flops") or 0 for stage, result in training(data).items()}
    stages = list(seconds)
    if not any(seconds.values()):
        return False
    figure.set_size_inches(6.4, 1.3 + 0.28 * len(stages))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, colour, show in (
        (left, seconds, GREY, compact),
        (right, flops, TARGET, scientific),
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


PICTURES: tuple[tuple[str, str, str, Callable[[Any, RunData], bool]], ...] = (
    (
        "bpb",
        "Bits per byte after each stage",
        "Held-out text, with 95 % intervals. Bits per byte do not depend on the vocabulary, so all "
        "bars compare.",
        _paint_bpb,
    ),
    (
        "loss",
        "Training loss",
        "Nats per token: curves compare only between stages with the same vocabulary.",
        _paint_loss,
    ),
    (
        "phi",
        "The merging factor",
        "The adapter's share phi in W = W₀ + phi · (α/r) · BA, measured on documents that are "
        "used for nothing else. Shaded: 95 % intervals; green: the chosen value.",
        _paint_phi,
    ),
    (
        "pareto",
        "What is learnt against what is forgotten",
        "Each point is one phi (its value beside it). Lower left is better.",
        _paint_pareto,
    ),
    (
        "cost",
        "Where time and computation went",
        "Seconds of every finished stage; exact FLOPs of the training stages.",
        _paint_cost,
    ),
)

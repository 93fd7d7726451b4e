"""A plan as text for people; a figure that is not known is `n/a`."""

from collections.abc import Sequence

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.planning import Plan, PlanRow
from hpc_llm.accounting.projection import Estimate

__all__ = ["plan_table"]

LONG_HOURS = 100.0  # what takes longer is told in days
GIB = 2**30
MEMORY_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "loss",
    "recomputed": "one layer again",
    "live_parameters": "live parameters",
    "buckets": "buckets",
    "context": "context",
}
VERDICTS = {True: "fits", False: "DOES NOT FIT", None: "n/a"}
DEVICE = {"gpu": "GPU", "cpu": "core"}


def _unit(plan: Plan) -> tuple[str, float]:
    """Return hours or days, and how many hours that is."""
    hours = plan.total.projection.mid.hours
    return ("days", 24.0) if hours is not None and hours > LONG_HOURS else ("hours", 1.0)


def _span(estimates: Sequence[Estimate], key: str, separator: str, unit: float = 1.0) -> str:
    values = [getattr(estimate, key) for estimate in estimates]
    if None in values:
        return "n/a"
    return separator.join(dict.fromkeys(figure(value / unit) for value in values))


def _cells(row: PlanRow, unit: float) -> list[str]:
    low, mid, high = row.projection.low, row.projection.mid, row.projection.high
    trainable = share = per_token = of_full = ""
    if row.trainable is not None and row.parameters is not None:
        trainable, share = f"{row.trainable:,}", f"{row.trainable / row.parameters:.1%}"
    if row.flops_per_token is not None and row.share_of_full is not None:
        per_token, of_full = figure(row.flops_per_token / 1e9), f"{row.share_of_full:.3f}"
    return [
        row.stage,
        row.method,
        trainable,
        share,
        f"{row.tokens:,}",
        per_token,
        of_full,
        figure(pf_days(row.flops)),
        figure(pf_days(row.projection.flops)),
        _span([low, mid, high], "hours", " / ", unit),
        _span([low, high], "device_hours", "-"),
        _span([low, high], "money", "-"),
    ]


def _stages(plan: Plan) -> list[str]:
    name, unit = _unit(plan)
    heads = ["stage", "method", "trainable", "", "tokens", "GF/token", "of full", "PF-days"]
    heads += ["hardware", f"{name} low/mid/high", f"{DEVICE[plan.kind]}-hours", plan.currency]
    return columns([heads, *(_cells(row, unit) for row in [*plan.rows, plan.total])], left=2)


def _memory(plan: Plan) -> list[str]:
    """Return a line for each stage: GiB of one device by part, and the network beside it."""
    rows = [row for row in plan.rows if row.memory is not None]
    parts = {
        key: name
        for key, name in MEMORY_PARTS.items()
        if any(getattr(row.memory, key) for row in rows)
    }
    lines = [["GiB a device", *parts.values(), "peak", f"of {figure(plan.memory_gib)}", "network"]]
    for row in rows:
        assert row.memory is not None
        network = "n/a" if row.network_share is None else f"+{row.network_share:.1%}"
        cells = [figure(getattr(row.memory, key) / GIB) for key in parts]
        peak = figure(row.memory.total / GIB)
        lines.append([row.stage, *cells, peak, VERDICTS[row.fits], network])
    again = "with" if plan.recompute else "without"
    note = (
        f"ZeRO {plan.zero_stage}, {again} recomputation, fragmentation not counted; network: time "
        "between nodes relative to computing, where nothing overlaps"
    )
    return ["", *columns(lines), note] if rows else []


def _suggestions(plan: Plan) -> list[str]:
    """Return what would make every stage fit, one way a line."""
    if plan.suggestions is None:
        return []
    if not plan.suggestions:
        return ["", "nothing that was tried fits: take larger devices, or a smaller model"]
    name, unit = _unit(plan)
    lines = [["nodes", name, f"{DEVICE[plan.kind]}-hours", plan.currency, "GiB", "overrides"]]
    for way in plan.suggestions:
        time = None if way.hours is None else way.hours / unit
        cells = [figure(value) for value in (time, way.device_hours, way.money)]
        memory = figure(way.memory_bytes / GIB)
        lines.append([str(way.nodes), *cells, memory, way.overrides])
    width = max(len(line[-1]) for line in lines)
    lines = [[*line[:-1], line[-1].ljust(width)] for line in lines]
    return ["", "all stages fit with (mid, network between nodes included):", *columns(lines)]


def _tokenizer(plan: Plan) -> str:
    text = f"tokenizer {plan.vocab_size_new:,} pieces"
    if plan.token_ratio is None:
        return (
            f"{text}: a token costs x{plan.token_cost_ratio:.3f}; what a text costs is not known "
            "before plan.token_ratio (new tokens / old tokens)"
        )
    return f"{text}, tokens x{plan.token_ratio:.3f}: cost of a text x{plan.text_cost_ratio:.3f}"


def _energy(plan: Plan) -> str:
    ends = [plan.total.projection.low, plan.total.projection.high]
    if ends[0].energy_kwh is None:
        return "energy n/a"
    energy = f"energy {_span(ends, 'energy_kwh', '-')} kWh (modelled: devices at board power)"
    if ends[0].co2_kg is None:
        return f"{energy}, CO2 n/a: give cluster.carbon_g_per_kwh"
    return f"{energy}, {_span(ends, 'co2_kg', '-')} kg CO2"


def plan_table(plan: Plan) -> str:
    """Return the plan as lines: model and machine, stages, memory, what would fit, notes."""
    count = plan.parameters
    lines = [
        f"{plan.model}  {count.total:,} parameters (body {count.body:,}, embedding "
        f"{count.embedding:,}, head {count.head:,})  vocabulary {plan.vocab_size_old:,} -> "
        f"{plan.vocab_size_new:,}",
        f"{plan.devices} x {plan.device} ({plan.cluster}), {plan.peak_tflops:.4g} TFLOP/s "
        f"{plan.precision} each   batch {plan.batch_tokens:,} tokens in rows of "
        f"{plan.sequence_length:,}   recipe {plan.recipe}",
        "",
        *_stages(plan),
        *_memory(plan),
        *_suggestions(plan),
        "",
        _energy(plan),
        _tokenizer(plan),
        f"6 N D, which counts every parameter as trained: {figure(pf_days(plan.total.flops_6n))} "
        "PF-days in all",
    ]
    return "\n".join([*lines, *plan.notes])

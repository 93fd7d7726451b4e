"""A plan as text for people, as JSON and as CSV; a figure that is not known is `n/a` or empty."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.planning import Plan, PlanRow, make_plan
from hpc_llm.accounting.projection import Estimate
from hpc_llm.accounting.published_tables import published_table
from hpc_llm.settings import RunConfig
from hpc_llm.settings.checks import require_choice

__all__ = ["plan_answer", "render_plan"]


def _range(estimates: list[Estimate], key: str, separator: str) -> str:
    values = [getattr(estimate, key) for estimate in estimates]
    if None in values:
        return "n/a"
    return separator.join(dict.fromkeys(figure(value) for value in values))


def _cells(row: PlanRow) -> list[str]:
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
        figure(pf_days(row.flops_6n)),
        figure(pf_days(row.flops)),
        _range([low, mid, high], "hours", " / "),
        _range([low, high], "device_hours", "-"),
        _range([low, high], "money", "-"),
    ]


MEMORY_PARTS = (
    ("weights", "weights"),
    ("gradients", "gradients"),
    ("optimizer", "optimizer"),
    ("activations", "activations"),
    ("logits", "loss"),
    ("recomputed", "one layer again"),
    ("live_parameters", "live parameters"),
    ("buckets", "buckets"),
    ("context", "context"),
)
GIB = 2**30


def _memory_lines(plan: Plan, row: PlanRow) -> list[str]:
    if row.memory is None:
        return []
    parts = " | ".join(
        f"{name} {figure(getattr(row.memory, key) / GIB)}"
        for key, name in MEMORY_PARTS
        if getattr(row.memory, key)
    )
    verdict = {True: "fits", False: "DOES NOT FIT", None: "n/a"}[row.fits]
    lines = [
        f"{row.stage}: GiB on one device, ZeRO {plan.zero_stage}: {parts}; peak "
        f"{figure(row.memory.total / GIB)} of {figure(plan.memory_gib)}: {verdict}"
    ]
    if row.remedy:
        lines.append(f"{row.stage}: would fit with {row.remedy}")
    elif row.remedy == "":
        lines.append(f"{row.stage}: nothing fits here; take more devices or larger ones")
    if row.network_share is not None and row.network_share >= 0.005:
        lines.append(
            f"{row.stage}: the network between nodes adds {row.network_share:.0%} where nothing "
            "overlaps"
        )
    return lines


def _table(plan: Plan) -> str:
    heads = ["stage", "method", "trainable", "", "tokens", "GF/token", "of full", "6ND PF-d"]
    heads += ["PF-days", "hours low/mid/high", "device-hours", plan.currency]
    lines = [heads] + [_cells(row) for row in [*plan.rows, plan.total]]
    count = plan.parameters
    total = plan.total.projection
    head = (
        f"{plan.model}  {count.total:,} parameters (body {count.body:,}, embedding "
        f"{count.embedding:,}, head {count.head:,})  vocabulary {plan.vocab_size_old:,} -> "
        f"{plan.vocab_size_new:,}\n"
        f"{plan.devices} x {plan.device} ({plan.cluster}), {plan.peak_tflops:.4g} TFLOP/s "
        f"{plan.precision} each   batch {plan.batch_tokens:,} tokens in rows of "
        f"{plan.sequence_length:,}   recipe {plan.recipe}\n"
    )
    ends = [total.low, total.high]
    foot = (
        f"energy {_range(ends, 'energy_kwh', '-')} kWh (devices at board power), "
        f"{_range(ends, 'co2_kg', '-')} kg CO2"
    )
    memory = [line for row in plan.rows for line in _memory_lines(plan, row)]
    return "\n".join([head, *columns(lines, left=2), "", *memory, foot, *plan.notes, ""])


def _json(plan: Plan) -> str:
    data = asdict(plan)
    for row, written in zip(plan.rows, data["rows"], strict=True):
        if row.memory is not None:
            written["memory"]["total"] = row.memory.total
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def _csv(plan: Plan) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ["stage", "method", "trainable", "parameters", "tokens", "flops_per_token"]
    keys += ["share_of_full", "flops", "flops_6n"]
    parts = [
        (end, key)
        for end in ("low", "mid", "high")
        for key in ("hours", "device_hours", "money", "energy_kwh", "co2_kg")
    ]
    last = ["memory_bytes", "fits", "network_share", "currency"]
    writer.writerow([*keys, "hardware_flops", *(f"{key}_{end}" for end, key in parts), *last])
    for row in [*plan.rows, plan.total]:
        estimates = [getattr(getattr(row.projection, end), key) for end, key in parts]
        own = [getattr(row, key) for key in keys]
        peak = None if row.memory is None else row.memory.total
        ends = [peak, row.fits, row.network_share, plan.currency]
        writer.writerow([*own, row.projection.flops, *estimates, *ends])
    return out.getvalue()


WRITERS: dict[str, Callable[[Plan], str]] = {"table": _table, "json": _json, "csv": _csv}


def render_plan(plan: Plan, format: str = "table") -> str:
    """Return the plan as a text of `format`: table, json or csv."""
    require_choice("plan.format", format, WRITERS)
    return WRITERS[format](plan)


def plan_answer(cfg: RunConfig) -> str:
    """Return what `hpc-llm plan` prints: the plan of `cfg`, or a published table."""
    if cfg.plan.table is not None:
        return published_table(cfg.plan.table)
    return render_plan(make_plan(cfg), cfg.plan.format)

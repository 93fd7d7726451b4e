"""The tables of the page, as text cells; one without data has no rows."""

from dataclasses import dataclass
from typing import Any

from hpc_llm.accounting.flops import pf_days
from hpc_llm.report.gather import RunData, bpb_stages, training
from hpc_llm.report.text import change, clock, compact, count, decimal, scientific

__all__ = [
    "Table",
    "bpb_table",
    "corpus_table",
    "count_table",
    "stage_table",
    "vocabulary_table",
]


@dataclass(frozen=True)
class Table:
    """Text cells under heads; the first column names the row."""

    heads: list[str]
    rows: list[list[str]]


def bpb_table(summary: dict[str, Any]) -> Table:
    """Bits per byte after each stage, and their change against the base model."""
    stages = bpb_stages(summary)
    base = stages.get("base", (None, None))
    rows = []
    for stage, both in stages.items():
        cells = [stage]
        for value, before in zip(both, base, strict=True):
            cells += [decimal(value), "" if stage == "base" else change(value, before)]
        rows.append(cells)
    return Table(["after", "target", "vs base", "source", "vs base"], rows)


def stage_table(data: RunData) -> Table:
    """One row for each finished stage; what only training has is empty elsewhere."""
    total = sum(record.get("seconds") or 0 for record in data.records.values())
    results = training(data)
    rows = []
    for stage, record in data.records.items():
        seconds, cells = record.get("seconds"), [""] * 6
        if result := results.get(stage):
            flops = result.get("flops")
            cells = [
                count(result.get("steps")),
                compact(result.get("tokens")),
                compact(result.get("trainable_parameters")),
                decimal(result.get("loss")),
                scientific(flops),
                scientific(None if flops is None else pf_days(flops)),
            ]
        share = f"{100 * seconds / total:.0f} %" if seconds is not None and total else ""
        rows.append([stage, *cells, clock(seconds), share])
    heads = ["stage", "steps", "tokens", "trained", "loss", "FLOPs", "PF-days", "time", "share"]
    return Table(heads, rows)


def vocabulary_table(result: dict[str, Any]) -> Table:
    """The old vocabulary beside the new one, on the same text."""
    old, new = result.get("old") or {}, result.get("new") or {}
    rows = [
        [
            key.replace("_", " "),
            decimal(old.get(key), 2),
            decimal(new.get(key), 2),
            change(new.get(key), old.get(key)),
        ]
        for key in {**old, **new}
        if key != "vocab_size" and (_is_number(old.get(key)) or _is_number(new.get(key)))
    ]
    if (ratio := result.get("tokens_ratio")) is not None:
        rows.append(["tokens for the same text", "1.00", decimal(ratio, 2), change(ratio, 1.0)])
    if (size := result.get("vocab_size")) is not None:
        rows.append(["pieces", count(old.get("vocab_size")), count(size), ""])
    return Table(["", "old", "new", "change"], rows)


def corpus_table(result: dict[str, Any]) -> Table:
    """Documents, characters and bytes of each language."""
    sides = {side: counts for side, counts in result.items() if isinstance(counts, dict)}
    keys = list({key: None for counts in sides.values() for key in counts})
    rows = [
        [key.replace("_", " "), *(count(counts.get(key)) for counts in sides.values())]
        for key in keys
        if all(_is_number(counts.get(key, 0)) for counts in sides.values())
    ]
    return Table(["", *sides], rows)


def count_table(result: dict[str, Any]) -> Table:
    """The counts of a flat result, one a row."""
    rows = [[key.replace("_", " "), count(v)] for key, v in result.items() if _is_number(v)]
    return Table(["", "rows"], rows)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

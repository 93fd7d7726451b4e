"""Tables of the page, as text cells; one without data has no rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpc_llm.accounting.flops import pf_days
from hpc_llm.report.gather import RunData, training
from hpc_llm.report.measures import (
    Measures,
    axis_label,
    by_name,
    change_from,
    first_point,
    measure_text,
    points_of,
)
from hpc_llm.report.text import change, clock, compact, count, decimal, scientific

__all__ = [
    "Table",
    "corpus_table",
    "count_table",
    "initial_table",
    "measure_list",
    "measure_table",
    "mixture_table",
    "stage_table",
    "tokenizer_table",
    "vocabulary_table",
]

LABELS = {"tokens_per_word": "fertility (tokens per word)"}


@dataclass(frozen=True)
class Table:
    """Text cells under column heads; the first column names the row."""

    heads: list[str]
    rows: list[list[str]]


def measure_table(measures: Measures) -> Table:
    """A row for each measure, a column for each point; lines of a cell: value, interval, change."""
    points, first = points_of(measures), first_point(measures)
    rows = []
    for name, column in measures.items():
        base = column.get(first or "")
        cells = [_lines(column.get(point), base) for point in points]
        rows.append([f"{name}\n{axis_label(column)}\n{_sizes(column)}", *cells])
    return Table(["measure", *points], rows)


def _lines(measure: dict[str, Any] | None, base: dict[str, Any] | None) -> str:
    if measure is None:
        return ""
    value, _, ends = measure_text(measure).partition(" (")
    return "\n".join([value, ends.rstrip(")"), change_from(base, measure)]).rstrip("\n")


def _sizes(column: dict[str, dict[str, Any]]) -> str:
    """Return the sample size of a measure: `n = 130`."""
    return "n = " + " / ".join(dict.fromkeys(count(measure["n"]) for measure in column.values()))


FLOPS_MARKS = {"counted": " (counted on the model)", "6n": " (6 N per token)"}


def measure_list(measures: Measures) -> Table:
    """A row for each measure and point, for a terminal of 80 columns."""
    first = first_point(measures)
    rows = [
        [name, point, measure_text(measure), change_from(column.get(first or ""), measure)]
        for name, column in measures.items()
        for point, measure in column.items()
    ]
    return Table(
        ["measure", "after", "value (95 % interval)", f"vs {first}" if first else ""], rows
    )


def stage_table(data: RunData) -> Table:
    """One row for each finished stage; columns of training are empty for other stages."""
    total = sum(record["seconds"] or 0 for record in data.records.values())
    results = training(data)
    rows = []
    for stage, record in data.records.items():
        seconds, cells = record["seconds"], [""] * 6
        if result := results.get(stage):
            flops = result["flops"]
            cells = [
                count(result["steps"]),
                compact(result["tokens"]),
                compact(result["trainable_parameters"]),
                decimal(result["loss"]),
                scientific(flops) + FLOPS_MARKS.get(str(result.get("flops_source")), ""),
                scientific(None if flops is None else pf_days(flops)),
            ]
        share = f"{100 * seconds / total:.0f} %" if seconds is not None and total else ""
        rows.append([stage, *cells, clock(seconds), share])
    heads = ["stage", "steps", "tokens", "trainable", "loss", "FLOPs", "PF-days", "time", "share"]
    return Table(heads, rows)


def tokenizer_table(result: dict[str, Any]) -> Table:
    """A row for each measure, a column for each tokenizer: old, new, those of `compare`.

    `result` as in `evaluate/tokenizer.json`, or empty. Lines of a cell: value, interval, change.
    """
    if not result:
        return Table([], [])
    columns = result["tokenizers"]
    measures = by_name(columns)
    rows = [
        [
            f"{name.replace('_', ' ')}\n{axis_label(column)}",
            *(_lines(column.get(side), column.get("old")) for side in columns),
        ]
        for name, column in measures.items()
    ]
    rows.append(["vocabulary size", *(count(result["vocab_sizes"][side]) for side in columns)])
    return Table(["tokenizer", *columns], rows)


def vocabulary_table(result: dict[str, Any]) -> Table:
    """The old and the new tokenizer on the same text; `result` of stage `tokenizer` or empty.

    For runs of versions without `evaluate/tokenizer.json`.
    """
    if not result:
        return Table([], [])
    old, new = result["old"], result["new"]
    rows = [
        [
            LABELS.get(key, key.replace("_", " ")),
            decimal(old.get(key), 2),  # not every measure is taken of both
            decimal(new.get(key), 2),
            change(new.get(key), old.get(key)),
        ]
        for key in {**old, **new}
        if _is_number(old.get(key)) or _is_number(new.get(key))
    ]
    ratio = result["token_ratio"]
    rows.append(["tokens for the same text", "1.00", decimal(ratio, 2), change(ratio, 1.0)])
    size = result.get("old_vocab_size")  # records of older versions have none
    rows.append(["vocabulary size", count(size), count(result["vocab_size"]), ""])
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


def mixture_table(data: RunData) -> Table:
    """Share of the tokens, sequences and epochs of each text of stages that read several."""
    rows = [
        [stage, text, decimal(own["share"]), count(own["rows"]), decimal(own["epochs"], 2)]
        for stage, result in training(data).items()
        for text, own in (result.get("texts") or {}).items()
    ]
    return Table(["stage", "text", "share of the tokens", "sequences", "epochs"], rows)


def count_table(result: dict[str, Any]) -> Table:
    """The counts of a flat result, one in each row."""
    rows = [[key.replace("_", " "), count(v)] for key, v in result.items() if _is_number(v)]
    return Table(["", "tokens"], rows)


def initial_table(result: dict[str, Any]) -> Table:
    """Sources, fits and norms of the new rows; a column for each side that has its own matrix.

    `result` of stage `transplant`, or empty. Whatever an initialisation reports has a row.
    """
    sides = {side: dict(_flat(result[side])) for side in ("input", "output") if result.get(side)}
    labels = list({label: None for report in sides.values() for label in report})
    rows = [[label, *(report.get(label, "") for report in sides.values())] for label in labels]
    names = list(sides) if len(sides) == 2 or not sides else ["input and output"]
    return Table(["", *names], rows)


def _flat(report: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield labels and texts of a report; three numbers are quantiles."""
    for key, value in report.items():
        label = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, f"{label}: ")
        elif isinstance(value, list):
            if value:
                yield f"{label} (5 %, 50 %, 95 %)", ", ".join(map(scientific, value))
        elif isinstance(value, int):
            yield label, count(value)
        elif value is not None:
            yield label, value if isinstance(value, str) else scientific(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

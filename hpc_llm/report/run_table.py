"""The table of many runs as Markdown, HTML, LaTeX and on the console; its content is table.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_llm.distributed import visible
from hpc_llm.report.measures import in_order, measure_text
from hpc_llm.report.page import render
from hpc_llm.report.sections import Table
from hpc_llm.report.text import NOT_KNOWN, compact, decimal, money, scientific
from hpc_llm.rundir import write_json, write_text

__all__ = ["print_table", "table_cells", "write_table"]

VIEWS = ("md", "html", "tex")


def write_table(results: Mapping[str, Any], folder: Path) -> None:
    """Write table.json, .md, .html and .tex (the body of a LaTeX table) to `folder`."""
    write_json(folder / "table.json", dict(results))
    content = {
        "title": results["title"] or results["table"],
        "table": table_cells(results),
        "groups": [row["group"] for row in results["rows"]],
        "notes": _notes(results),
    }
    for view in VIEWS:
        write_text(folder / f"table.{view}", render(f"table.{view}.j2", content))


def table_cells(results: Mapping[str, Any]) -> Table:
    """Return the cells: measures, difference, vocabulary and costs; only columns that have data."""
    rows = results["rows"]
    names = in_order(row["measures"] for row in rows)
    main = names[0] if names else ""
    columns: list[tuple[str, list[str]]] = [("row", [row["label"] for row in rows])]
    early = [row["early"] for row in rows]
    if any(early):
        columns.append((f"{main} before", [measure_text((one or {}).get(main)) for one in early]))
    for name in names:
        columns.append((name, [measure_text(row["measures"].get(name)) for row in rows]))
        if name == main:
            columns.append((f"{main}, difference", [_difference(row, main) for row in rows]))
    columns += [
        ("phi", [", ".join(decimal(one, 2) for one in row["phi"]) for row in rows]),
        ("tokens, same text", [_times(row["token_ratio"]) for row in rows]),
        ("trained tokens", [compact(row["tokens"]) for row in rows]),
        ("trained text, MB", [_megabytes(row["text_bytes"]) for row in rows]),
        ("FLOPs", [scientific(row["flops"]) for row in rows]),
        (_unit(rows), [decimal(row["hours"], 3) for row in rows]),
        ("cost", [money(row["money"]) for row in rows]),
    ]
    kept = [
        (head, cells) for head, cells in columns if any(c not in ("", NOT_KNOWN) for c in cells)
    ]
    return Table(
        [head for head, _ in kept], [list(row) for row in zip(*(c for _, c in kept), strict=True)]
    )


def _difference(row: Mapping[str, Any], name: str) -> str:
    """Return `-0.012 (-0.020 to -0.004) to LABEL`."""
    found = row["difference"].get(name)
    if not found or found["value"] is None:
        return ""
    value, low, high = (f"{found[key]:+.3f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high}) to {row['against']}"


def _times(ratio: float | None) -> str:
    return NOT_KNOWN if ratio is None else f"×{ratio:.2f}"


def _megabytes(count: float | None) -> str:
    return NOT_KNOWN if count is None else decimal(count / 1e6, 2)


def _unit(rows: Sequence[Mapping[str, Any]]) -> str:
    return next((row["unit"] for row in rows if row["hours"] is not None), "device-hours")


def _notes(results: Mapping[str, Any]) -> list[str]:
    """Return the remarks below the table."""
    seeds = results["seeds"]
    several = f"seeds {', '.join(map(str, seeds))} and" if len(seeds) > 1 else "one seed, over"
    notes = [
        f"Means over {several} test documents; in brackets 95 % intervals of a bootstrap over "
        + ("both." if len(seeds) > 1 else "documents: another seed is not covered."),
        "Differences are paired by seed and document; below 0 is better than the row named.",
    ]
    if (found := results["rank_agreement"]) is not None:
        tau, p = decimal(found["tau"], 2), decimal(found["p"], 3)
        notes.append(
            f"Order of {found['rows']} rows by {found['measure']} before and after: Kendall's "
            f"tau {tau} (p {p})."
        )
    for row in results["rows"]:
        if row["finished"] < row["runs"]:
            notes.append(f"{row['label']}: {row['finished']} of {row['runs']} runs are finished.")
    lacking = sorted({name for row in results["rows"] for name in row["without_costs_of"]})
    if lacking:
        notes.append(f"Costs lack {', '.join(lacking)}: computed by runs outside the table.")
    return notes


def print_table(results: Mapping[str, Any]) -> None:
    """Print the table, with a line for each group."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    cells, group = table_cells(results), ""
    table = RichTable(box=SIMPLE_HEAD, title=Text(visible(results["title"] or results["table"])))
    for number, head in enumerate(cells.heads):
        table.add_column(Text(visible(head)), justify="right" if number else "left")
    for row, line in zip(results["rows"], cells.rows, strict=True):
        if row["group"] != group:
            group = row["group"]
            table.add_section()
            table.add_row(Text(visible(group), style="bold"))
        table.add_row(*(Text(visible(cell)) for cell in line))
    console = Console(highlight=False)
    Console(width=None if console.is_terminal else 1000, highlight=False).print(table)
    print("\n".join(f"  {visible(note)}" for note in _notes(results)))

"""The one table that ends `hpc-llm adapt`: what each stage changed, and what it all took."""

from typing import Any, TextIO

from hpc_llm.report.sections import bpb_table
from hpc_llm.report.text import NOT_KNOWN, change, clock, decimal, interval, money, scientific
from hpc_llm.rundir import RunFolder, read_json

__all__ = ["figures", "print_summary", "summary_table"]

PIPE_COLUMNS = 80


def figures(summary: dict[str, Any]) -> dict[str, str]:
    """Return the figures of a run that are not bits per byte, as label -> text."""
    words = summary.get("tokens_per_word") or {}
    old, new = words.get("old"), words.get("new")
    words_text = f"{decimal(old, 2)} → {decimal(new, 2)} ({change(new, old)})"
    return {
        "tokens per word": NOT_KNOWN if old is None or new is None else words_text,
        "merging factor phi": interval(summary.get("phi")),
        "training FLOPs": scientific(summary.get("flops")),
        "PF-days": scientific(summary.get("pf_days")),
        "GPU-hours": decimal(summary.get("gpu_hours"), 2),
        "wall time (h:mm:ss)": clock(summary.get("wall_seconds")),
        "money": money(summary.get("money")),
    }


def summary_table(summary: dict[str, Any]) -> Any:
    """Return `summary.json` as something that rich prints.

    Rows are stages with bits per byte (BPB) of held-out target and source text and their change
    against the base model; below them stand tokens per word, phi and the cost.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    bpb = bpb_table(summary)
    title = Text(f"{summary.get('run')}: bits per byte, held-out text", style="bold")
    table = Table(box=SIMPLE_HEAD, title=title)
    for number, head in enumerate(bpb.heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    for row in bpb.rows:
        table.add_row(*row, style="bold" if row[0] == "corrected" else "")
    rest = Table.grid(padding=(0, 2))
    for label, text in figures(summary).items():
        rest.add_row(f"  {label}", text)
    return Group(table, rest)


def print_summary(folder: RunFolder, file: TextIO) -> None:
    """Print the summary of `folder` and where page and model lie; plain, 80 columns, on a pipe."""
    from rich.console import Console

    console = Console(file=file, width=None if file.isatty() else PIPE_COLUMNS, highlight=False)
    summary = read_json(folder.summary)
    console.print(summary_table({**summary, "run": summary.get("run") or folder.path.name}))
    console.print()
    for label, path in (("report", folder.report), ("model", folder.model)):
        if path.exists():
            console.print(f"  {label:8}{path}", soft_wrap=True, markup=False)

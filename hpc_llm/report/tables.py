"""The table at the end of `hpc-llm adapt`: the measures after each stage, and the cost."""

from collections import Counter
from typing import Any, TextIO

from hpc_llm.distributed import visible
from hpc_llm.report.measures import summary_measures
from hpc_llm.report.sections import measure_list, tokenizer_table
from hpc_llm.report.text import NOT_KNOWN, change, clock, decimal, interval, money, scientific
from hpc_llm.rundir import RunFolder, read_json

__all__ = [
    "FERTILITY",
    "PER_CHARACTER",
    "print_summary",
    "print_tokenizers",
    "results",
    "summary_table",
]

PIPE_COLUMNS = 80
FERTILITY = "fertility (tokens per word)"
PER_CHARACTER = "fertility (tokens per character)"  # of languages without spaces


def results(summary: dict[str, Any]) -> dict[str, str]:
    """Return the results of a run that are not measures, as label -> text.

    `summary` is a whole `summary.json`: a missing key is a `KeyError`, None is n/a.
    """
    label, fertility = _fertility(summary)
    ratio = summary.get("token_ratio")  # summaries of older versions have none
    gaps = summary.get("not_in_ledger")  # the costs lack these stages
    return {
        label: fertility,
        "tokens for the same text": NOT_KNOWN if ratio is None else f"×{decimal(ratio, 3)}",
        "merging factor phi": interval(summary["phi"], of="best factor"),
        "training FLOPs": scientific(summary["flops"]),
        "PF-days": scientific(summary["pf_days"]),
        "GPU-hours": decimal(summary["gpu_hours"], 2),
        "wall time (h:mm:ss)": clock(summary["wall_seconds"]),
        **({"time by part": parts} if (parts := _time_by_part(summary)) else {}),
        "cost": money(summary["money"]),
        **({"not in the ledger": ", ".join(gaps)} if gaps else {}),
    }


def _time_by_part(summary: dict[str, Any]) -> str:
    """Return the share of each part of the recipe in the time of all stages, the longest first."""
    seconds: Counter[str] = Counter()
    for stage, taken in (summary.get("stage_seconds") or {}).items():
        seconds[stage.split("/")[0]] += taken or 0
    total = sum(seconds.values())
    shares = {part: round(100 * taken / total) for part, taken in seconds.most_common() if taken}
    return ", ".join(f"{part} {share} %" for part, share in shares.items() if share)


def _fertility(summary: dict[str, Any]) -> tuple[str, str]:
    """Return label and text of the fertility; per character for text without spaces."""
    none = {"old": None, "new": None}
    label, found = FERTILITY, summary["tokens_per_word"] or none
    per_character = summary.get("tokens_per_character")  # of older versions: none
    if found["new"] is None and per_character:
        label, found = PER_CHARACTER, per_character
    old, new = found["old"], found["new"]
    return label, f"{decimal(old, 2)} → {decimal(new, 2)} ({change(new, old)})"


def summary_table(summary: dict[str, Any]) -> Any:
    """Return `summary.json` as a renderable of rich.

    A row for each measure and point with its 95 % interval and its change against the first point;
    below them fertility, phi and the cost.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    listed = measure_list(summary_measures(summary))
    title = Text(visible(f"{summary['run']}: measures on held-out text"), style="bold")
    table = Table(box=SIMPLE_HEAD, title=title)
    for number, head in enumerate(listed.heads):
        table.add_column(head, justify="right" if number > 1 else "left")
    for number, row in enumerate(listed.rows, 1):
        last = number == len(listed.rows) or listed.rows[number][0] != row[0]  # of its measure
        table.add_row(*map(Text, map(visible, row)), style="bold" if last else "", end_section=last)
    rest = Table.grid(padding=(0, 2))
    for label, text in results(summary).items():
        rest.add_row(f"  {label}", Text(visible(text)))
    return Group(table, rest)


def print_tokenizers(folder: RunFolder, file: TextIO) -> None:
    """Print the measures of old and new tokenizer: those of `evaluate/tokenizer.json`."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    found = tokenizer_table(read_json(folder.path / "evaluate/tokenizer.json"))
    table = Table(box=SIMPLE_HEAD)
    for number, head in enumerate(found.heads):
        table.add_column(head, justify="right" if number else "left")
    for name, *cells in found.rows:
        values = ["\n".join(cell.split("\n")[:2]) for cell in cells]  # without the change
        table.add_row(*map(Text, map(visible, [name.split("\n")[0], *values])))
    width = None if file.isatty() else PIPE_COLUMNS
    Console(file=file, width=width, highlight=False).print(table)


def print_summary(folder: RunFolder, file: TextIO) -> None:
    """Print the summary of `folder` and the paths of page and model; 80 columns on a pipe."""
    from rich.console import Console

    console = Console(file=file, width=None if file.isatty() else PIPE_COLUMNS, highlight=False)
    summary = read_json(folder.summary)
    console.print(summary_table({**summary, "run": summary["run"] or folder.path.name}))
    console.print()
    for label, path in (("report", folder.report), ("model", folder.model)):
        if path.exists():
            console.print(f"  {label:8}{path}", soft_wrap=True, markup=False)

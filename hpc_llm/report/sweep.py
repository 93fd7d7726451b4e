"""The table of a sweep: a row for each trial, with what it tried, how it went and what it took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_llm.accounting import middle_price, run_bill
from hpc_llm.report.text import NOT_KNOWN, decimal, interval, money
from hpc_llm.rundir import RunFolder, Trial, read_json

__all__ = ["Figures", "TrialRow", "best_of", "read_figures", "short_names", "sweep_table"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a trial has measured and spent so far; what is not known is None or empty."""

    point: str | None = None
    """The model that was evaluated last: base, transplant, lora, corrected, ..."""
    target: Mapping[str, float | None]
    """Its bits per byte of held-out target text: value, low, high."""
    source: Mapping[str, float | None]
    phi: Mapping[str, float | None]
    """The merging factor: value, low, high."""
    hours: float = 0.0
    """Device-hours."""
    unit: str = ""
    """GPU-hours or core-hours."""
    amount: float | None = None
    """Money, in `currency`."""
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One line of the table."""

    trial: Trial
    state: str
    """In words: done, failed at train/lora, waits."""
    outcome: str
    """done, failed, or open."""
    figures: Figures

    @property
    def target(self) -> float | None:
        """Bits per byte of target text."""
        return self.figures.target.get("value")


def read_figures(folder: RunFolder, trial: Trial) -> Figures:
    """Return what the run folder of a trial tells, of results that belong to its settings."""
    done = folder.done(trial.stages)
    points = [name.split("/")[1] for name in done if name.startswith("evaluate/")]
    measured = read_json(folder.path / f"evaluate/{points[-1]}.json") if points else {}
    phi = read_json(folder.path / "correct/phi.json")["phi"] if "correct" in done else None
    return Figures(
        point=points[-1] if points else None,
        target=measured.get("target") or {},
        source=measured.get("source") or {},
        phi=phi or {},
        **_spent(folder),
    )


def _spent(folder: RunFolder) -> dict[str, Any]:
    if not folder.ledger.is_file():
        return {}
    bill = run_bill(folder.path, ask_slurm=False)
    known: dict[str, Any] = {"hours": bill.totals.spent.device_hours, "unit": "device-hours"}
    if bill.hardware is not None:
        known["unit"] = "GPU-hours" if bill.hardware.kind == "gpu" else "core-hours"
        known["amount"] = bill.money(middle_price(bill.hardware))
        known["currency"] = bill.hardware.currency
    return known


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the finished trial with the fewest bits per byte of target text."""
    done = [row for row in rows if row.outcome == "done" and row.target is not None]
    return min(done, key=lambda row: row.target or 0.0, default=None)


def short_names(keys: Sequence[str]) -> list[str]:
    """Return the ends of dotted keys that tell them apart: alpha for stages.lora.alpha."""

    def end(key: str, length: int) -> str:
        return ".".join(key.split(".")[-length:])

    names = []
    for key in keys:
        lengths = range(1, len(key.split(".")) + 1)
        others = [other for other in keys if other != key]
        alone = (n for n in lengths if end(key, n) not in [end(other, n) for other in others])
        names.append(end(key, next(alone, len(lengths))))
    return names


def sweep_table(keys: Sequence[str], rows: Sequence[TrialRow]) -> Any:
    """Return the rows, by their numbers, as something that rich prints; the best one is marked."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table, best = Table(box=SIMPLE_HEAD), best_of(rows)
    table.add_column("trial", justify="right", no_wrap=True)
    for name in short_names(keys):
        table.add_column(Text(name), justify="right")
    table.add_column("state")
    table.add_column("model", no_wrap=True)
    for head in ("target BPB", "source BPB", "phi", "cost"):
        table.add_column(head, justify="right", no_wrap=True)
    styles = {"failed": "red", "open": "dim"}
    for row in sorted(rows, key=lambda row: row.trial.number):
        state = f"{row.state}, best" if row is best else row.state
        cells = [str(row.trial.number), *(row.trial.values[key] for key in keys), state]
        style = "bold" if row is best else styles.get(row.outcome, "")
        table.add_row(*map(Text, [*cells, *_figures(row.figures)]), style=style)
    return table


def _figures(figures: Figures) -> list[str]:
    cost = NOT_KNOWN
    if figures.amount is not None:
        cost = money({"amount": figures.amount, "currency": figures.currency})
    elif figures.hours:
        cost = f"{figures.hours:.3g} {figures.unit}"
    return [
        figures.point or NOT_KNOWN,
        decimal(figures.target.get("value")),
        decimal(figures.source.get("value")),
        interval(dict(figures.phi)),
        cost,
    ]

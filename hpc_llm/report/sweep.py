"""The table of a sweep: a row for each trial with its values, state, measures and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_llm.accounting import cost_report, middle_price
from hpc_llm.distributed import visible
from hpc_llm.report.measures import in_order, is_better, measure_text, read_measures
from hpc_llm.report.text import NOT_KNOWN, decimal, money
from hpc_llm.rundir import RunFolder, Trial, read_json

__all__ = [
    "TrialResults",
    "TrialRow",
    "best_of",
    "main_measure",
    "measure_names",
    "read_results",
    "short_names",
    "sweep_table",
]


@dataclass(frozen=True, kw_only=True)
class TrialResults:
    """Measures and cost of a trial so far; unknown values are None or empty."""

    point: str | None = None
    """The point that was evaluated last: base, transplant, lora, corrected, ..."""
    measures: Mapping[str, Mapping[str, Any]]
    """Its measures by name: value, low, high, n, unit, better."""
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
    """As text: done, failed at train/lora, pending."""
    outcome: str
    """done, failed, or open."""
    results: TrialResults

    def value(self, measure: str | None) -> float | None:
        """Return the value of a measure; None if the trial has none."""
        found = self.results.measures.get(measure or "")
        return None if found is None else found["value"]


def read_results(folder: RunFolder, trial: Trial) -> TrialResults:
    """Return the results in the run folder of a trial that belong to its settings."""
    done = folder.done(trial.stages)
    points = [name.split("/")[1] for name in done if name.startswith("evaluate/")]
    measures = read_measures(folder.path / f"evaluate/{points[-1]}.json") if points else {}
    phi = read_json(folder.path / "correct/phi.json")["phi"] if "correct" in done else None
    return TrialResults(
        point=points[-1] if points else None,
        measures=measures,
        phi=phi or {},
        **_spent(folder),
    )


def _spent(folder: RunFolder) -> dict[str, Any]:
    if not folder.ledger.is_file():
        return {}
    costs = cost_report(folder.path, ask_slurm=False)
    known: dict[str, Any] = {"hours": costs.totals.spent.device_hours, "unit": "device-hours"}
    if costs.hardware is not None:
        known["unit"] = "GPU-hours" if costs.hardware.kind == "gpu" else "core-hours"
        known["amount"] = costs.money(middle_price(costs.hardware))
        known["currency"] = costs.hardware.currency
    return known


def measure_names(rows: Sequence[TrialRow]) -> list[str]:
    """Return the names of all measures of the trials, in the order of their evaluation."""
    return in_order(row.results.measures for row in rows)


def main_measure(rows: Sequence[TrialRow]) -> str | None:
    """Return the measure that trials are ranked by: the first one."""
    return next(iter(measure_names(rows)), None)


def best_of(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the finished trial that is best by the main measure."""
    main, best = main_measure(rows), None
    for row in rows:
        value = row.value(main)
        if row.outcome != "done" or main is None or value is None:
            continue
        before = None if best is None else best.value(main)
        if before is None or is_better(value, before, row.results.measures[main]["better"]):
            best = row
    return best


def short_names(keys: Sequence[str]) -> list[str]:
    """Return the shortest unambiguous suffixes of dotted keys: alpha for stages.lora.alpha."""

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
    """Return the rows, by trial number, as a renderable of rich; the best one is marked."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table, best, names = Table(box=SIMPLE_HEAD), best_of(rows), measure_names(rows)
    table.add_column("trial", justify="right", no_wrap=True)
    for name in short_names(keys):
        table.add_column(Text(visible(name)), justify="right")
    table.add_column("state")
    table.add_column("model", no_wrap=True)
    for head in (*names, "phi", "cost"):
        table.add_column(Text(visible(head)), justify="right", no_wrap=True)
    styles = {"failed": "red", "open": "dim"}
    for row in sorted(rows, key=lambda row: row.trial.number):
        state = f"{row.state}, best" if row is best else row.state
        cells = [str(row.trial.number), *(row.trial.values[key] for key in keys), state]
        style = "bold" if row is best else styles.get(row.outcome, "")
        shown = map(visible, [*cells, *_cells(row.results, names)])
        table.add_row(*map(Text, shown), style=style)
    return table


def _cells(results: TrialResults, names: Sequence[str]) -> list[str]:
    cost = NOT_KNOWN
    if results.amount is not None:
        cost = money({"amount": results.amount, "currency": results.currency})
    elif results.hours:
        cost = f"{results.hours:.3g} {results.unit}"
    measures = [measure_text(results.measures.get(name)) for name in names]
    return [results.point or NOT_KNOWN, *measures, decimal(results.phi.get("value"), 2), cost]

"""The cost reports of several runs as a table, with their sum: `hpc-llm ledger`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.cost_report import CostReport, cost_report
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.ledger import LedgerTotals
from hpc_llm.accounting.projection import sum_known
from hpc_llm.errors import UserError

__all__ = ["CostTable", "cost_table"]

HEADS = (
    "run",
    "tokens",
    "FLOPs spent",
    "useful",
    "PF-days",
    "device-hours",
    "Slurm",
    "goodput",
    "money",
    "",
    "kWh",
    "",
    "prior",
    "measured",
)
NOTES = (
    "device-hours: allocated devices x wall time, lost work included; Slurm: the same by sacct; "
    "goodput: the useful share",
    "kWh: by the driver's counter (measured), or devices at board power (model)",
    "prior: device-hours by the catalogue's utilisation for the same FLOPs, without the network, "
    "over those spent; measured: what stages were projected to take after 50 steps, over what they "
    "took",
)


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Output of `hpc-llm ledger`."""

    text: str
    """The table, with explanations of its columns."""
    remarks: list[str]
    """Skipped run folders, missing and damaged files, one sentence each."""


def _ratio(value: float | None) -> str:
    return "n/a" if value is None else f"x{value:.2f}"


def _counts(name: str, totals: LedgerTotals, slurm_hours: float | None) -> list[str]:
    spent, useful, goodput = totals.spent, totals.useful, totals.goodput
    return [
        name,
        f"{spent.tokens:,}",
        f"{spent.flops:.3g}",
        f"{useful.flops:.3g}",
        figure(pf_days(spent.flops)),
        figure(spent.device_hours),
        figure(slurm_hours),
        "n/a" if goodput is None else f"{goodput:.1%}",
    ]


def _money(report: CostReport) -> list[float | None]:
    """Money spent at the lower and at the higher price."""
    if report.hardware is None:
        return [None, None]
    return [report.money(report.hardware.price_low), report.money(report.hardware.price_high)]


def _currency(report: CostReport) -> str:
    return "" if report.hardware is None else report.hardware.currency


def _cells(report: CostReport) -> list[str]:
    return [
        *_counts(report.run, report.totals, report.slurm_hours),
        "-".join(dict.fromkeys(figure(amount) for amount in _money(report))),
        _currency(report),
        figure(report.energy_kwh),
        report.energy_source,
        _ratio(report.projected_ratio),
        _ratio(report.measured_ratio),
    ]


def _sum_cells(reports: Sequence[CostReport]) -> list[str]:
    """Add the runs up; a number that one of them lacks, or money of two currencies, is n/a."""
    totals = LedgerTotals()
    for report in reports:
        totals.spent.add_all(report.totals.spent)
        totals.useful.add_all(report.totals.useful)
    currencies = {_currency(report) for report in reports}
    ends = [sum_known(prices) for prices in zip(*map(_money, reports), strict=True)]
    money = ends if len(currencies) == 1 else [None, None]
    sources = {part for report in reports for part in report.energy_source.split("+") if part}
    energy = sum_known([report.energy_kwh for report in reports])
    return [
        *_counts("sum", totals, sum_known([report.slurm_hours for report in reports])),
        "-".join(dict.fromkeys(figure(amount) for amount in money)),
        currencies.pop() if len(currencies) == 1 else "",
        figure(energy),
        "" if energy is None else "+".join(sorted(sources)),
        "",
        "",
    ]


def cost_table(paths: Sequence[Path]) -> CostTable:
    """Return one line for each run folder, their sum, and remarks; other folders are skipped.

    Raises `UserError` where none of them has a ledger.
    """
    reports, remarks = [], []
    for path in paths:
        try:
            report = cost_report(path)
        except (UserError, OSError) as error:
            remarks.append(f"{str(error).split(';')[0]}; skipped")
            continue
        reports.append(report)
        remarks += report.remarks
    if not reports:
        names = ", ".join(map(str, paths))
        has = "has" if len(paths) == 1 else "have"
        fix = "pass the folder of a run that has trained"
        raise UserError(names, None, f"{has} no ledger.jsonl", fix)
    rows = [HEADS, *map(_cells, reports)]
    if len(reports) > 1:
        rows.append(_sum_cells(reports))
    return CostTable(text="\n".join([*columns(rows), *NOTES]) + "\n", remarks=remarks)

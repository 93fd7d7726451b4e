"""The bills of several runs as a table, with their sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc_llm.accounting.bill import Bill, run_bill
from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.ledger import LedgerTotals
from hpc_llm.errors import UserError

__all__ = ["LedgerReport", "ledger_report"]

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
class LedgerReport:
    """What `hpc-llm ledger` prints."""

    text: str
    remarks: list[str]
    """What was passed over, missing or damaged, one sentence each."""


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


def _money(bill: Bill) -> list[float | None]:
    """Everything spent at the lower and at the higher price."""
    if bill.hardware is None:
        return [None, None]
    return [bill.money(bill.hardware.price_low), bill.money(bill.hardware.price_high)]


def _currency(bill: Bill) -> str:
    return "" if bill.hardware is None else bill.hardware.currency


def _cells(bill: Bill) -> list[str]:
    return [
        *_counts(bill.run, bill.totals, bill.slurm_hours),
        "-".join(dict.fromkeys(figure(amount) for amount in _money(bill))),
        _currency(bill),
        figure(bill.energy_kwh),
        bill.energy_source,
        _ratio(bill.projected_ratio),
        _ratio(bill.measured_ratio),
    ]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _sum_cells(bills: Sequence[Bill]) -> list[str]:
    """Add the runs up; a figure that one of them lacks, or money of two currencies, is n/a."""
    totals = LedgerTotals()
    for bill in bills:
        totals.spent.add_all(bill.totals.spent)
        totals.useful.add_all(bill.totals.useful)
    currencies = {_currency(bill) for bill in bills}
    ends = [_sum(prices) for prices in zip(*map(_money, bills), strict=True)]
    money = ends if len(currencies) == 1 else [None, None]
    sources = {part for bill in bills for part in bill.energy_source.split("+") if part}
    energy = _sum([bill.energy_kwh for bill in bills])
    return [
        *_counts("sum", totals, _sum([bill.slurm_hours for bill in bills])),
        "-".join(dict.fromkeys(figure(amount) for amount in money)),
        currencies.pop() if len(currencies) == 1 else "",
        figure(energy),
        "" if energy is None else "+".join(sorted(sources)),
        "",
        "",
    ]


def ledger_report(paths: Sequence[Path]) -> LedgerReport:
    """Return one line for each run folder, their sum, and remarks; others are passed over.

    Raises `UserError` where none of them has a ledger.
    """
    bills, remarks = [], []
    for path in paths:
        try:
            bill = run_bill(path)
        except (UserError, OSError) as error:
            remarks.append(f"{str(error).split(';')[0]}; passed over")
            continue
        bills.append(bill)
        remarks += bill.remarks
    if not bills:
        names = ", ".join(map(str, paths))
        hold = "holds" if len(paths) == 1 else "hold"
        raise UserError(f"{names}: {hold} no ledger.jsonl; give a run folder that has trained")
    rows = [HEADS, *map(_cells, bills)]
    if len(bills) > 1:
        rows.append(_sum_cells(bills))
    return LedgerReport(text="\n".join([*columns(rows), *NOTES]) + "\n", remarks=remarks)

"""The bill of finished and running runs: `hpc-llm ledger runs/*`.

Everything comes from the run folder: what was spent from its ledger; device, price and goodput
from its `config.yaml`. Beside what was spent stands what the catalogue's prior would have said
for the same FLOPs, what the run itself projected after 50 steps, and what Slurm has billed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.hardware import Machine, device_catalogue
from hpc_llm.accounting.ledger import Ledger, LedgerRow, LedgerTotals
from hpc_llm.accounting.money import priced
from hpc_llm.accounting.projection import Projection, project_flops
from hpc_llm.accounting.slurm import billed_hours
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import BudgetSettings, ClusterSettings, HardwareSettings

__all__ = ["Bill", "ledger_report", "run_bill"]


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one run took."""

    run: str
    totals: LedgerTotals
    hardware: HardwareSettings | None
    """None where the run folder has no configuration."""
    projection: Projection | None
    """What the FLOPs carried out would take by the catalogue, on one device."""
    measured_ratio: float | None = None
    """What finished stages were projected to take after 50 steps, relative to what they took."""
    slurm_hours: float | None = None
    """Device-hours of the run's jobs by `sacct`."""

    def money(self, price: float | None) -> float | None:
        """Everything spent, at that price for a device and hour."""
        return None if price is None else self.totals.spent.device_hours * price

    @property
    def energy_kwh(self) -> float | None:
        """Measured where the driver counts it, else devices at their board power."""
        watts = None if self.hardware is None else self.hardware.watts
        return self.totals.spent.energy_kwh(watts)

    @property
    def energy_source(self) -> str:
        """How the energy is known: measured, model, or both."""
        spent = self.totals.spent
        parts = ["measured"] * bool(spent.joules) + ["model"] * bool(spent.unmeasured_hours)
        return "+".join(parts) if self.energy_kwh is not None else ""

    @property
    def projected_ratio(self) -> float | None:
        """Device-hours that the projection (`mid`) gives, relative to those spent."""
        hours = None if self.projection is None else self.projection.mid.device_hours
        if hours is None or not self.totals.spent.device_hours:
            return None
        return hours / self.totals.spent.device_hours


def _settings(folder: RunFolder) -> dict[str, Any] | None:
    import yaml

    if not folder.config.is_file():
        return None
    return dict(yaml.safe_load(folder.config.read_text(encoding="utf-8")))


def run_bill(path: Path) -> Bill:
    """Return the bill of the run folder `path`; `UserError` where it has no ledger."""
    folder = RunFolder(path)
    if not folder.ledger.is_file():
        raise UserError(f"{path}: holds no ledger.jsonl; give a run folder that has trained")
    ledger = Ledger(folder.ledger)
    rows, totals = ledger.rows(), ledger.totals()
    config = _settings(folder)
    hardware = projection = None
    if config is not None:
        hardware, machine = _machine(config, rows)
        if machine is not None:
            projection = project_flops(totals.spent.hardware_flops, machine)
    jobs = {row.job for row in rows if row.job is not None}
    outside = any(row.job is None for row in rows)
    return Bill(
        run=str(path),
        totals=totals,
        hardware=hardware,
        projection=projection,
        measured_ratio=_measured_ratio(rows),
        slurm_hours=None if outside or not rows else billed_hours(jobs, rows[-1].kind),
    )


def _machine(
    config: dict[str, Any], rows: Sequence[LedgerRow]
) -> tuple[HardwareSettings | None, Machine | None]:
    """The device that was found while running, else that of the configuration, in its currency.

    And one of it as a machine, where its peak is known. Nothing for a file of another version.
    """
    found = next((row.device for row in rows if row.device is not None), None)
    devices = (entry for entry in device_catalogue().values() if entry.name == found)
    try:
        hardware = next(devices, None) or HardwareSettings(**config["hardware"])
        hardware = priced(hardware, BudgetSettings(**config["budget"]))
        cluster = replace(ClusterSettings(**config["cluster"]), nodes=1, devices_per_node=1)
        precision = config["train"]["precision"]
    except (KeyError, TypeError):
        return None, None
    if precision not in hardware.peak_tflops:
        return hardware, None
    return hardware, Machine(hardware=hardware, cluster=cluster, precision=precision)


def _measured_ratio(rows: Sequence[LedgerRow]) -> float | None:
    """Projected over actual seconds, of all stages that were projected and have ended."""
    projected = actual = 0.0
    for place, row in enumerate(rows):
        after = [other for other in rows[place + 1 :] if other.stage == row.stage]
        ends = [number for number, other in enumerate(after) if other.reason == "end"]
        if row.reason == "projection" and row.projected_seconds is not None and ends:
            projected += row.projected_seconds
            actual += sum(other.seconds for other in after[: ends[0]])
    return projected / actual if actual else None


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
    "prior: device-hours by the catalogue's utilisation for the same FLOPs, over those spent; "
    "measured: what stages were projected to take after 50 steps, over what they took",
)


def _ratio(value: float | None) -> str:
    return "n/a" if value is None else f"x{value:.2f}"


def _cells(bill: Bill) -> list[str]:
    spent, useful, hardware = bill.totals.spent, bill.totals.useful, bill.hardware
    prices = (None, None) if hardware is None else (hardware.price_low, hardware.price_high)
    money = dict.fromkeys(figure(bill.money(price)) for price in prices)
    goodput = bill.totals.goodput
    return [
        bill.run,
        f"{spent.tokens:,}",
        f"{spent.flops:.3g}",
        f"{useful.flops:.3g}",
        figure(pf_days(spent.flops)),
        figure(spent.device_hours),
        figure(bill.slurm_hours),
        "n/a" if goodput is None else f"{goodput:.1%}",
        "-".join(money),
        "" if hardware is None else hardware.currency,
        figure(bill.energy_kwh),
        bill.energy_source,
        _ratio(bill.projected_ratio),
        _ratio(bill.measured_ratio),
    ]


def ledger_report(paths: Sequence[Path]) -> str:
    """Return one line for each run folder; `UserError` for a folder without a ledger."""
    lines = [HEADS, *(_cells(run_bill(path)) for path in paths)]
    return "\n".join([*columns(lines), *NOTES]) + "\n"

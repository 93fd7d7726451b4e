"""The bill of finished and running runs: `hpc-llm ledger runs/*`.

Everything comes from the run folder: what was spent from its ledger; device, price and goodput
from its `config.yaml`. Beside what was spent stands what the catalogue's prior would have said
for the same FLOPs, what the run itself projected after 50 steps, and what Slurm has billed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc_llm.accounting.hardware import Machine, device_catalogue
from hpc_llm.accounting.ledger import Ledger, LedgerRow, LedgerTotals
from hpc_llm.accounting.money import priced
from hpc_llm.accounting.projection import Projection, project_flops
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder
from hpc_llm.scheduler.records import billed_hours
from hpc_llm.settings import BudgetSettings, ClusterSettings, HardwareSettings

__all__ = ["Bill", "run_bill"]


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one run took."""

    run: str
    totals: LedgerTotals
    hardware: HardwareSettings | None
    """None where the run folder has no configuration that can be read."""
    projection: Projection | None
    """What the FLOPs carried out would take by the catalogue, on one device."""
    measured_ratio: float | None = None
    """What finished stages were projected to take after 50 steps, relative to what they took."""
    slurm_hours: float | None = None
    """Device-hours of the run's jobs by `sacct`."""
    remarks: list[str] = field(default_factory=list)
    """What of the run folder is missing or damaged."""

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


def _settings(folder: RunFolder) -> dict[str, Any]:
    """Return the configuration of a run folder, as far as it can be read; {} if it cannot."""
    import yaml

    try:
        settings = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def run_bill(path: Path, *, ask_slurm: bool = True) -> Bill:
    """Return the bill of the run folder `path`; `UserError` where it has no ledger.

    `ask_slurm`: with what Slurm has billed.
    """
    folder = RunFolder(path)
    if not folder.ledger.is_file():
        raise UserError(f"{path}: holds no ledger.jsonl; give a run folder that has trained")
    ledger = Ledger(folder.ledger)
    rows, totals = ledger.rows(), ledger.totals()
    hardware, machine = _machine(_settings(folder), rows)
    jobs = {row.job for row in rows if row.job is not None}
    outside = not ask_slurm or any(row.job is None for row in rows)
    flops = totals.spent.hardware_flops
    return Bill(
        run=str(path),
        totals=totals,
        hardware=hardware,
        projection=None if machine is None else project_flops(flops, machine),
        measured_ratio=_measured_ratio(rows),
        slurm_hours=None if outside or not rows else billed_hours(jobs, rows[-1].kind),
        remarks=_remarks(folder, ledger, bool(rows), hardware is not None),
    )


def _remarks(folder: RunFolder, ledger: Ledger, has_rows: bool, has_device: bool) -> list[str]:
    """Say what of a run folder is missing or damaged."""
    remarks = []
    if damaged := ledger.damaged():
        lines = "1 damaged line is" if damaged == 1 else f"{damaged} damaged lines are"
        remarks.append(f"{ledger.path}: {lines} passed over, and what it told is not in the sums")
    if not has_rows:
        remarks.append(f"{ledger.path}: is empty, nothing is spent yet")
    if not has_device:
        there = folder.config.is_file()
        what = "is damaged, or of another version" if there else "is missing"
        remarks.append(f"{folder.config}: {what}; money, energy at board power and prior are n/a")
    return remarks


def _machine(
    config: dict[str, Any], rows: Sequence[LedgerRow]
) -> tuple[HardwareSettings | None, Machine | None]:
    """The device that was found while running, else that of the configuration, in its currency.

    And one of it as a machine, where its peak is known. Nothing for a file that is damaged, or of
    another version.
    """
    found = next((row.device for row in rows if row.device is not None), None)
    devices = (entry for entry in device_catalogue().values() if entry.name == found)
    try:
        hardware = next(devices, None) or HardwareSettings(**config["hardware"])
        hardware = priced(hardware, BudgetSettings(**config["budget"]))
        cluster = replace(ClusterSettings(**config["cluster"]), nodes=1, devices_per_node=1)
        precision = config["train"]["precision"]
    except (KeyError, TypeError, AttributeError, ValueError):
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

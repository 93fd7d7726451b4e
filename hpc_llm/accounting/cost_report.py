"""The cost report of a finished or running run: one line of `hpc-llm ledger runs/*`.

Everything comes from the run folder: costs from its ledger; device, price and goodput from its
`config.yaml`. For comparison it has the estimate by the catalogue's utilisation for the same FLOPs,
the projection of the run itself after 50 steps, and the hours charged by Slurm.
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
from hpc_llm.rundir import RunFolder, check_yaml
from hpc_llm.scheduler.records import billed_hours
from hpc_llm.settings import BudgetSettings, ClusterSettings, HardwareSettings

__all__ = ["CostReport", "cost_report"]


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """Costs of one run."""

    run: str
    """The run folder."""
    totals: LedgerTotals
    """Sums of its ledger."""
    hardware: HardwareSettings | None
    """None where the run folder has no readable configuration."""
    projection: Projection | None
    """Estimate by the catalogue for the executed FLOPs, on one device."""
    measured_ratio: float | None = None
    """Time of finished stages as projected after 50 steps / as measured."""
    slurm_hours: float | None = None
    """Device-hours of the run's jobs by `sacct`."""
    remarks: list[str] = field(default_factory=list)
    """Missing or damaged files of the run folder."""

    def money(self, price: float | None) -> float | None:
        """Money spent, at `price` per device-hour; None without a price."""
        return None if price is None else self.totals.spent.device_hours * price

    @property
    def energy_kwh(self) -> float | None:
        """Energy, measured by the driver, else at board power; None where unknown."""
        watts = None if self.hardware is None else self.hardware.watts
        return self.totals.spent.energy_kwh(watts)

    @property
    def energy_source(self) -> str:
        """Source of the energy: measured, model, or measured+model."""
        spent = self.totals.spent
        parts = ["measured"] * bool(spent.joules) + ["model"] * bool(spent.unmeasured_hours)
        return "+".join(parts) if self.energy_kwh is not None else ""

    @property
    def projected_ratio(self) -> float | None:
        """Device-hours of the projection (`mid`) / device-hours spent."""
        hours = None if self.projection is None else self.projection.mid.device_hours
        if hours is None or not self.totals.spent.device_hours:
            return None
        return hours / self.totals.spent.device_hours


def _settings(folder: RunFolder) -> dict[str, Any]:
    """Return the configuration of a run folder; {} where it is not readable."""
    import yaml

    try:
        check_yaml(folder.config)
        settings = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, UserError, yaml.YAMLError):
        return {}
    return settings if isinstance(settings, dict) else {}


def cost_report(path: Path, *, ask_slurm: bool = True) -> CostReport:
    """Return the cost report of the run folder `path`; `UserError` where it has no ledger.

    `ask_slurm`: query `sacct` for the hours charged.
    """
    folder = RunFolder(path)
    if not folder.ledger.is_file():
        fix = "pass the folder of a run that has trained"
        raise UserError(str(path), None, "has no ledger.jsonl", fix)
    ledger = Ledger(folder.ledger)
    rows, totals = ledger.rows(), ledger.totals()
    hardware, machine = _machine(_settings(folder), rows)
    jobs = {row.job for row in rows if row.job is not None}
    outside = not ask_slurm or any(row.job is None for row in rows)
    flops = totals.spent.hardware_flops
    return CostReport(
        run=str(path),
        totals=totals,
        hardware=hardware,
        projection=None if machine is None else project_flops(flops, machine),
        measured_ratio=_measured_ratio(rows),
        slurm_hours=None if outside or not rows else billed_hours(jobs, rows[-1].kind),
        remarks=_remarks(folder, ledger, bool(rows), hardware is not None),
    )


def _remarks(folder: RunFolder, ledger: Ledger, has_rows: bool, has_device: bool) -> list[str]:
    """List the missing or damaged files of a run folder."""
    remarks = []
    if damaged := ledger.damaged():
        lines = "1 damaged line is" if damaged == 1 else f"{damaged} damaged lines are"
        remarks.append(f"{ledger.path}: {lines} skipped and not in the sums")
    if not has_rows:
        remarks.append(f"{ledger.path}: is empty, nothing has been spent yet")
    if not has_device:
        there = folder.config.is_file()
        what = "is damaged, or from another version" if there else "is missing"
        remarks.append(f"{folder.config}: {what}; money, energy at board power and prior are n/a")
    return remarks


def _machine(
    config: dict[str, Any], rows: Sequence[LedgerRow]
) -> tuple[HardwareSettings | None, Machine | None]:
    """Return the device detected while running, else that of the configuration, in its currency.

    And a machine of one such device, where its peak is known. None for a configuration that is
    damaged, or from another version.
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
    """Projected / measured seconds of all stages that were projected and have ended."""
    projected = actual = 0.0
    for place, row in enumerate(rows):
        after = [other for other in rows[place + 1 :] if other.stage == row.stage]
        ends = [number for number, other in enumerate(after) if other.reason == "end"]
        if row.reason == "projection" and row.projected_seconds is not None and ends:
            projected += row.projected_seconds
            actual += sum(other.seconds for other in after[: ends[0]])
    return projected / actual if actual else None

"""The bill of finished and running runs: `hpc-llm ledger runs/*`.

Everything comes from the run folder: what was spent from its ledger, device, price and goodput
from its `config.yaml`. Beside what was spent stands what the projection would have said for the
same FLOPs, so that its error is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.hardware import Machine
from hpc_llm.accounting.ledger import Ledger, LedgerTotals
from hpc_llm.accounting.projection import Projection, project_flops
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import ClusterSettings, HardwareSettings

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

    def money(self, price: float | None) -> float | None:
        """Everything spent, at that price for a device and hour."""
        return None if price is None else self.totals.spent.device_hours * price

    @property
    def energy_kwh(self) -> float | None:
        """Devices at their board power: a model, not a measurement."""
        if self.hardware is None or self.hardware.watts is None:
            return None
        return self.totals.spent.device_hours * self.hardware.watts / 1000

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
    totals = Ledger(folder.ledger).totals()
    config = _settings(folder)
    hardware = projection = None
    if config is not None:
        hardware = HardwareSettings(**config["hardware"])
        cluster = replace(ClusterSettings(**config["cluster"]), nodes=1, devices_per_node=1)
        precision = config["train"]["precision"]
        if precision in hardware.peak_tflops:
            machine = Machine(hardware=hardware, cluster=cluster, precision=precision)
            projection = project_flops(totals.spent.hardware_flops, machine)
    return Bill(run=str(path), totals=totals, hardware=hardware, projection=projection)


def _cells(bill: Bill) -> list[str]:
    spent, useful, hardware = bill.totals.spent, bill.totals.useful, bill.hardware
    prices = (None, None) if hardware is None else (hardware.price_low, hardware.price_high)
    money = dict.fromkeys(figure(bill.money(price)) for price in prices)
    goodput, ratio = bill.totals.goodput, bill.projected_ratio
    return [
        bill.run,
        f"{spent.tokens:,}",
        f"{spent.flops:.3g}",
        f"{useful.flops:.3g}",
        figure(pf_days(spent.flops)),
        figure(spent.device_hours),
        "n/a" if goodput is None else f"{goodput:.1%}",
        "-".join(money),
        "" if hardware is None else hardware.currency,
        figure(bill.energy_kwh),
        "n/a" if ratio is None else f"x{ratio:.2f}",
    ]


def ledger_report(paths: Sequence[Path]) -> str:
    """Return one line for each run folder; `UserError` for a folder without a ledger."""
    heads = ["run", "tokens", "FLOPs spent", "useful", "PF-days", "device-hours", "goodput"]
    heads += ["money", "", "kWh", "projected"]
    lines = [heads, *(_cells(run_bill(path)) for path in paths)]
    notes = [
        "goodput: useful share of the device-hours; kWh: devices at board power, a model; "
        "projected: device-hours by the catalogue's utilisation for the same FLOPs"
    ]
    return "\n".join([*columns(lines), *notes]) + "\n"

"""Cost account of a running run: ledger rows, money at catalogue prices, the budget.

The rows of one start of the process follow each other without a gap, so they add up to its wall
time as Slurm charges it, including program start-up, checkpointing and waiting.
"""

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from hpc_llm.accounting import (
    EnergyCounter,
    Ledger,
    LedgerRow,
    Spending,
    find_device,
    middle_price,
    pf_days,
    priced,
)
from hpc_llm.distributed import Ranks, say
from hpc_llm.errors import UserError
from hpc_llm.scheduler import job_start
from hpc_llm.settings import BudgetSettings, HardwareSettings, RunConfig

__all__ = ["Account", "allocated_devices", "measure_energy"]

WARNINGS = (0.5, 0.8)  # fractions of the budget at which a warning is logged


class Account:
    """The cost of a run: earlier starts, and what this start adds. Only rank 0 writes."""

    def __init__(self, cfg: RunConfig, path: Path, ranks: Ranks, segment: str) -> None:
        """Open the ledger at `path`; `segment` is the id of this start.

        Raises `UserError` for a budget that cannot be checked.
        """
        self.budget, self.ranks, self.segment = cfg.budget, ranks, segment
        self.run = path.parent.name
        self.ledger = Ledger(path)
        self.hardware = priced(cfg.hardware, cfg.budget)
        self.device: str | None = None
        self.spent = self.ledger.totals().spent if ranks.is_first else Spending()
        self.counter = EnergyCounter(None)
        self._joules: float | None = None
        self._metered = False
        self._last = _began(os.environ) if ranks.is_first else time.time()
        self._warned = self._shares()
        _check_budget(self.budget, self.hardware)

    @property
    def devices(self) -> int:
        """Devices allocated to the run."""
        return allocated_devices(self.hardware.kind, self.ranks, os.environ)

    def found(self, name: str | None, uuid: str | None) -> None:
        """Register this rank's GPU by its driver name; None on a CPU.

        If the configuration names no GPU, money, energy and MFU use the catalogue entry of the GPU
        found. If it names another GPU, the configuration wins: its prices may be contractual.
        """
        if name is None:
            return
        self.counter = EnergyCounter(uuid)
        device = find_device(name)
        if device is not None and device.name == self.hardware.name:
            return
        if self.hardware.kind == "gpu":
            say(
                f"hardware: configured {self.hardware.name}, found {name}; money, energy and MFU "
                "use the configured entry"
            )
        elif device is None:
            say(f"hardware: {name} is not in the catalogue; set hardware=NAME or its values")
        else:
            say(f"hardware: found {device.name}; money, energy and MFU use its catalogue entry")
            self.hardware = priced(device, self.budget)
            self.device = device.name

    def measured(self, joules: float | None) -> None:
        """Record the energy of all devices since the last call (J); None: not measured."""
        self._joules, self._metered = joules, joules is not None

    def add(self, stage: str, **counts: object) -> LedgerRow:
        """Append a row for `stage` that covers the time since the previous row."""
        now = time.time()
        row = LedgerRow(
            run=self.run,
            stage=stage,
            job=self.ranks.job_id,
            restart=self.ranks.restart_count,
            segment=self.segment,
            seconds=max(0.0, now - self._last),
            time=now,
            devices=self.devices,
            kind=self.hardware.kind,
            device=self.device,
            joules=self._joules if self._joules is not None or not self._metered else 0.0,
            **{"step": 0, **counts},  # type: ignore[arg-type]
        )
        self._last, self._joules = now, None
        self.ledger.append(row)
        self.spent.add(row)
        self._warn()
        return row

    @property
    def device_hours(self) -> float:
        """Total spent so far, in allocated devices x hours."""
        return self.spent.device_hours + self.devices * (time.time() - self._last) / 3600

    def gpu_hours(self, hours: float) -> float:
        """Return the device-hours if the devices are GPUs, else 0."""
        return hours if self.hardware.kind == "gpu" else 0.0

    def money(self, hours: float) -> float | None:
        """Return the price of device-hours at the mid catalogue price; None without a price."""
        price = middle_price(self.hardware)
        return None if price is None else hours * price

    def costs(self, carbon_g_per_kwh: float | None) -> dict[str, float]:
        """Return the totals of the ledger as metrics `cost/*`, without those that are unknown."""
        spent, hours = self.spent, self.spent.device_hours
        energy = spent.energy_kwh(self.hardware.watts)
        known: dict[str, float | None] = {
            "cost/flops": spent.flops,
            "cost/pf_days": pf_days(spent.flops),
            "cost/device_hours": hours,
            "cost/gpu_hours": self.gpu_hours(hours),
            "cost/money": self.money(hours),
            "cost/energy_kwh": energy,
            "cost/co2_kg": None
            if energy is None or carbon_g_per_kwh is None
            else energy * carbon_g_per_kwh / 1000,
        }
        return {name: float(value) for name, value in known.items() if value is not None}

    def _shares(self, more_flops: int = 0) -> dict[str, tuple[float, float]]:
        """Return (spent, limit) for each limit that is set."""
        hours = self.device_hours
        spent = {
            "money": self.money(hours) or 0.0,
            "gpu_hours": self.gpu_hours(hours),
            "pf_days": pf_days(self.spent.flops + more_flops),
        }
        limits = {key: getattr(self.budget, key) for key in spent}
        return {key: (spent[key], limit) for key, limit in limits.items() if limit is not None}

    def over_budget(self, more_flops: int = 0) -> str | None:
        """Return the budget limit reached, or None; `more_flops` are not in the ledger yet."""
        for key, (spent, limit) in self._shares(more_flops).items():
            if spent >= limit:
                return (
                    f"budget.{key}={limit:g}: {spent:.4g} spent, including lost work; progress is "
                    f"saved; rerun the command with a larger budget.{key} to continue"
                )
        return None

    def _warn(self) -> None:
        """Warn at 50 % and 80 % of each limit, once per start."""
        now = self._shares()
        for key, (spent, limit) in now.items():
            before = self._warned[key][0] / limit
            passed = [share for share in WARNINGS if before < share <= spent / limit < 1]
            if passed:
                say(f"budget.{key}: {spent / limit:.0%} of {limit:g} spent")
        self._warned = now


def measure_energy(account: Account, ranks: Ranks) -> None:
    """Read the energy counters of all ranks' GPUs; record the sum in the account (collective)."""
    joules = account.counter.joules()
    if ranks.world_size > 1:
        from hpc_llm.training import process_group

        # one rank without a counter makes the sum NaN on all ranks
        total = process_group.all_sum_float(float("nan") if joules is None else joules)
        joules = None if math.isnan(total) else total
    account.measured(joules)


def _began(environment: Mapping[str, str]) -> float:
    """Return when charging starts: with the Slurm job if this is the job's first step."""
    own = psutil.Process().create_time()
    started = job_start(environment) if environment.get("SLURM_STEP_ID") == "0" else None
    return own if started is None else min(started, own)


def allocated_devices(kind: str, ranks: Ranks, environment: Mapping[str, str]) -> int:
    """Return the number of devices charged: those of the Slurm job, else those of the ranks.

    A device of kind cpu is a core; without Slurm, the cores this process may use. A job without
    GPUs is charged for none: its script hides the node's GPUs.
    """
    if kind == "gpu" and environment.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", 0))
    on_node = environment.get("SLURM_GPUS_ON_NODE" if kind == "gpu" else "SLURM_CPUS_ON_NODE")
    if nodes and on_node:
        return nodes * int(on_node)
    if kind == "gpu":
        return ranks.world_size
    return max(1, ranks.world_size // ranks.local_world_size) * len(os.sched_getaffinity(0))


def _check_budget(budget: BudgetSettings, hardware: HardwareSettings) -> None:
    if budget.money is not None and middle_price(hardware) is None:
        raise UserError(
            "budget.money",
            f"{budget.money:g}",
            f"{hardware.name} has no price",
            "set hardware.price_low and hardware.price_high, or use budget.gpu_hours",
        )
    if budget.gpu_hours is not None and hardware.kind != "gpu":
        raise UserError(
            "budget.gpu_hours",
            f"{budget.gpu_hours:g}",
            f"hardware={hardware.name} is not a GPU",
            "set hardware=NAME of the GPU, or use budget.money or budget.pf_days",
        )

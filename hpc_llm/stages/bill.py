"""The bill of a run: rows of the ledger, devices as allocated, money by the catalogue."""

import os

from hpc_llm.accounting import Ledger, LedgerRow
from hpc_llm.stages.context import Context

__all__ = ["add_row", "device_hours", "gpu_hours", "money"]


def devices(context: Context) -> int:
    """Devices allocated to the run: one GPU a rank, or on CPUs the cores of its nodes."""
    ranks = context.ranks
    if context.cfg.hardware.kind == "gpu":
        return ranks.world_size
    return max(1, ranks.world_size // ranks.local_world_size) * len(os.sched_getaffinity(0))


def device_hours(context: Context, seconds: float) -> float:
    """Allocated devices times hours."""
    return devices(context) * seconds / 3600


def gpu_hours(context: Context, hours: float) -> float:
    """Device-hours where the devices are GPUs, else 0."""
    return hours if context.cfg.hardware.kind == "gpu" else 0.0


def money(context: Context, hours: float) -> float | None:
    """Return what device-hours cost at the middle of the catalogue's prices; None without one."""
    hardware = context.cfg.hardware
    if hardware.price_low is None or hardware.price_high is None:
        return None
    return hours * (hardware.price_low + hardware.price_high) / 2


def add_row(context: Context, stage: str, **figures: object) -> None:
    """Append a row to the ledger; `figures` are the fields of `LedgerRow` that the caller knows."""
    row = LedgerRow(
        run=context.folder.path.name,
        stage=stage,
        job=context.ranks.job_id,
        restart=context.ranks.restart_count,
        segment=context.segment,
        devices=devices(context),
        kind=context.cfg.hardware.kind,
        **figures,  # type: ignore[arg-type]
    )
    Ledger(context.folder.ledger).append(row)

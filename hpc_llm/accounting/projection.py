"""Projects hours, money, energy and CO2 of a run before it starts, as intervals.

hours = hardware FLOPs / (peak of all devices x utilisation x goodput) + time of the network between
nodes. Hardware FLOPs are those that the machine executes (dense attention, recomputation included);
the utilisation is a prior from published measurements of full training, which exclude recomputation
from their FLOPs and include some network time: with both the hours are conservative. The
uncertainty of a whole run is about 35 %.

A value missing in the catalogue is None here and printed as n/a.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.flops import step_flops
from hpc_llm.accounting.hardware import Machine
from hpc_llm.accounting.method import Method
from hpc_llm.accounting.money import middle_price
from hpc_llm.settings import HardwareSettings
from hpc_llm.settings.checks import require_positive

__all__ = [
    "Estimate",
    "Projection",
    "computing_hours",
    "hardware_flops",
    "hidden_hours",
    "mean_utilisation",
    "project",
    "project_flops",
    "sum_known",
]

# Share of the network time that compute hides, if the trainer overlaps them; else none is hidden
OVERLAPS = {"low": 1.0, "mid": 1.0, "high": 0.5}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One point of an interval."""

    utilisation: float | None
    """Share of the dense peak."""
    hours: float | None
    """Wall time."""
    device_hours: float | None
    """Allocated devices x hours."""
    money: float | None
    """In the currency of the device's price."""
    energy_kwh: float | None
    """Devices at their board power, without host and cooling (the dynamic part of Luccioni et al.
    2022, arXiv 2211.02001)."""
    co2_kg: float | None
    """By the carbon intensity of the cluster."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """An interval: `low` is the lowest cost, `high` the highest.

    `low` has the highest utilisation and the lowest price, `mid` the means, `high` the opposite of
    `low`. If the trainer overlaps compute and network, the longer of the two counts in `low` and
    `mid`, and half of the overlap is lost in `high`.
    """

    flops: int
    """Hardware FLOPs."""
    network_hours: float | None
    """Time of the network between nodes; None: unknown, and not included in the hours."""
    low: Estimate
    """Fast and cheap."""
    mid: Estimate
    """Mean utilisation and price."""
    high: Estimate
    """Slow and expensive."""


def sum_known(values: Sequence[float | None]) -> float | None:
    """Return the sum; None where a value is unknown (None), or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _times(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first * second


def computing_hours(flops: int, machine: Machine, utilisation: float | None) -> float | None:
    """Return the hours of `machine` for hardware FLOPs, without the network; None: unknown."""
    if utilisation is None:
        return None
    return flops / (machine.flops_per_second * utilisation * machine.cluster.goodput) / 3600


def _estimate(
    hours: float | None, machine: Machine, utilisation: float | None, price: float | None
) -> Estimate:
    cluster, watts = machine.cluster, machine.hardware.watts
    device_hours = _times(hours, cluster.devices)
    energy = None if watts is None else _times(device_hours, watts / 1000)
    co2_g = _times(energy, cluster.carbon_g_per_kwh)
    return Estimate(
        utilisation=utilisation,
        hours=hours,
        device_hours=device_hours,
        money=_times(device_hours, price),
        energy_kwh=energy,
        co2_kg=_times(co2_g, 0.001),
    )


def hidden_hours(computing: float, network: float, *, end: str, overlap: bool) -> float:
    """Return the hours of the network that compute hides, at `end`: low, mid or high."""
    return OVERLAPS[end] * min(computing, network) if overlap else 0.0


def project_flops(
    flops: int, machine: Machine, network_hours: float | None = 0.0, *, overlap: bool = False
) -> Projection:
    """Project a run of `flops` (hardware FLOPs) on `machine`.

    `network_hours` is the time of the network between nodes without overlap; `overlap` whether the
    trainer communicates while it computes. Raises `UserError` for
    a precision that the device lacks.
    """
    hardware = machine.hardware
    _ = machine.flops_per_second  # refuse the precision even where the utilisation is unknown
    points = {
        "low": (hardware.utilisation_high, hardware.price_low),
        "mid": (mean_utilisation(hardware), middle_price(hardware)),
        "high": (hardware.utilisation_low, hardware.price_high),
    }
    estimates, sent = {}, network_hours or 0.0
    for end, (utilisation, price) in points.items():
        hours = computing_hours(flops, machine, utilisation)
        if hours is not None:
            hours += sent - hidden_hours(hours, sent, end=end, overlap=overlap)
        estimates[end] = _estimate(hours, machine, utilisation, price)
    return Projection(flops=flops, network_hours=network_hours, **estimates)


def mean_utilisation(hardware: HardwareSettings) -> float | None:
    """Return the mean of the catalogue's lower and higher utilisation, or None."""
    if hardware.utilisation_low is None or hardware.utilisation_high is None:
        return None
    return (hardware.utilisation_low + hardware.utilisation_high) / 2


def hardware_flops(arch: Architecture, method: Method, tokens: int, sequence_length: int) -> int:
    """Return the hardware FLOPs of `tokens`: dense attention, recomputation included."""
    require_positive("tokens", tokens)
    step = step_flops(arch, method, 1, sequence_length, attention="dense")
    return math.ceil(step.total * tokens / sequence_length)


def project(
    arch: Architecture, method: Method, tokens: int, machine: Machine, sequence_length: int
) -> Projection:
    """Project training of `arch` by `method` on `tokens` tokens in sequences of that length."""
    return project_flops(hardware_flops(arch, method, tokens, sequence_length), machine)

"""Hours, money, energy and CO2 of a run that has not started: intervals, never one number.

The time of a run is its FLOPs over the peak of all devices, over the share of the peak that
training reaches, over the share of the time that ends up in the result, and what the network
between nodes adds to that. The FLOPs are those that the machine carries out (dense attention,
recomputation included), the share is a prior from published measurements of full training, which
leave recomputation out of their FLOPs and have some network in their time: with both the hours are
on the cautious side. Those of a whole run cannot be told better than to about 35 %.

A figure that is not in the catalogue stays None here and is printed as n/a.
"""

import math
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
    "mean_utilisation",
    "project",
    "project_flops",
]

OVERLAPS = {"low": 1.0, "mid": 0.5, "high": 0.0}  # of the network's time, hidden behind computing


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One point of an interval."""

    utilisation: float | None
    """Share of the dense peak."""
    hours: float | None
    """From start to end."""
    device_hours: float | None
    money: float | None
    """In the currency of the device's price."""
    energy_kwh: float | None
    """Devices at their board power, without host and cooling (as Luccioni et al. 2022,
    arXiv 2211.02001, count the dynamic part)."""
    co2_kg: float | None


@dataclass(frozen=True, kw_only=True)
class Projection:
    """`low` is fast and cheap, `high` slow and dear; `mid` has the mean utilisation and price.

    At `low` computing and the network overlap in full, at `mid` by half, at `high` not at all.
    """

    flops: int
    """FLOPs that the machine carries out."""
    network_hours: float | None
    """Time on the network between nodes; None: not known, and then in none of the hours."""
    low: Estimate
    mid: Estimate
    high: Estimate


def _times(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first * second


def computing_hours(flops: int, machine: Machine, utilisation: float | None) -> float | None:
    """Hours of `machine` for FLOPs carried out, without any network; None where not known."""
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


def project_flops(flops: int, machine: Machine, network_hours: float | None = 0.0) -> Projection:
    """Project a run of that many FLOPs (as the machine carries them out) on `machine`.

    `network_hours` is what the network between nodes takes, where nothing overlaps. Raises
    `UserError` for a precision that the device does not have.
    """
    hardware = machine.hardware
    _ = machine.flops_per_second  # refuse the precision even where the utilisation is not known
    points = {
        "low": (hardware.utilisation_high, hardware.price_low),
        "mid": (mean_utilisation(hardware), middle_price(hardware)),
        "high": (hardware.utilisation_low, hardware.price_high),
    }
    estimates, sent = {}, network_hours or 0.0
    for end, (utilisation, price) in points.items():
        hours = computing_hours(flops, machine, utilisation)
        if hours is not None:
            hours += sent - OVERLAPS[end] * min(hours, sent)
        estimates[end] = _estimate(hours, machine, utilisation, price)
    return Projection(flops=flops, network_hours=network_hours, **estimates)


def mean_utilisation(hardware: HardwareSettings) -> float | None:
    """Return the middle of the utilisation that the catalogue gives; None without one."""
    if hardware.utilisation_low is None or hardware.utilisation_high is None:
        return None
    return (hardware.utilisation_low + hardware.utilisation_high) / 2


def hardware_flops(arch: Architecture, method: Method, tokens: int, sequence_length: int) -> int:
    """FLOPs that a machine carries out for `tokens`: dense attention, recomputation included."""
    require_positive("tokens", tokens)
    step = step_flops(arch, method, 1, sequence_length, attention="dense")
    return math.ceil(step.total * tokens / sequence_length)


def project(
    arch: Architecture, method: Method, tokens: int, machine: Machine, sequence_length: int
) -> Projection:
    """Project the training of `arch` by `method` on `tokens` tokens in rows of that length."""
    return project_flops(hardware_flops(arch, method, tokens, sequence_length), machine)

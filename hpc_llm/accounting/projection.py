"""Hours, money, energy and CO2 of a run that has not started: intervals, never one number.

The time of a run is its FLOPs over the peak of all devices, over the share of the peak that
training reaches, over the share of the time that ends up in the result. The FLOPs are those that
the machine carries out (dense attention, recomputation included), the share is a prior from
published measurements of full training, which leave recomputation out of their FLOPs: with it the
hours are on the cautious side. Those of a whole run cannot be told better than to about 35 %.

A figure that is not in the catalogue stays None here and is printed as n/a.
"""

import math
from dataclasses import dataclass

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.flops import step_flops
from hpc_llm.accounting.hardware import Machine
from hpc_llm.accounting.method import Method
from hpc_llm.settings import HardwareSettings
from hpc_llm.settings.checks import require_positive

__all__ = ["Estimate", "Projection", "hardware_flops", "project", "project_flops"]

JOULES_PER_KWH = 3.6e6


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
    """`low` is fast and cheap, `high` slow and dear; `mid` has the mean utilisation and price."""

    flops: int
    """FLOPs that the machine carries out."""
    low: Estimate
    mid: Estimate
    high: Estimate


def _times(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first * second


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def _estimate(
    flops: int, machine: Machine, utilisation: float | None, price: float | None
) -> Estimate:
    cluster = machine.cluster
    hours = None
    if utilisation is not None:
        rate = machine.flops_per_second * utilisation * cluster.goodput
        hours = flops / rate / 3600
    device_hours = _times(hours, cluster.devices)
    watts = machine.hardware.watts
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


def _mid_price(hardware: HardwareSettings) -> float | None:
    return _mean(hardware.price_low, hardware.price_high)


def project_flops(flops: int, machine: Machine) -> Projection:
    """Project a run of that many FLOPs (as the machine carries them out) on `machine`.

    Raises `UserError` for a precision that the device does not have.
    """
    hardware = machine.hardware
    low, high = hardware.utilisation_low, hardware.utilisation_high
    _ = machine.flops_per_second  # refuse the precision even where the utilisation is not known
    return Projection(
        flops=flops,
        low=_estimate(flops, machine, high, hardware.price_low),
        mid=_estimate(flops, machine, _mean(low, high), _mid_price(hardware)),
        high=_estimate(flops, machine, low, hardware.price_high),
    )


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

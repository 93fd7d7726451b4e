"""Money in the currency of the budget: prices of the catalogue, converted by a named rate."""

from dataclasses import replace

from hpc_llm.settings import BudgetSettings, HardwareSettings

__all__ = ["middle_price", "priced"]


def priced(hardware: HardwareSettings, budget: BudgetSettings) -> HardwareSettings:
    """Return the device with its prices in `budget.currency`.

    Raises `UserError` for a currency without a rate.
    """
    if budget.currency in (None, hardware.currency):
        return hardware
    factor = budget.rate(budget.currency) / budget.rate(hardware.currency)
    return replace(
        hardware,
        currency=budget.currency,
        price_low=None if hardware.price_low is None else hardware.price_low * factor,
        price_high=None if hardware.price_high is None else hardware.price_high * factor,
    )


def middle_price(hardware: HardwareSettings) -> float | None:
    """Return the middle of the catalogue's prices for a device and hour; None without one."""
    if hardware.price_low is None or hardware.price_high is None:
        return None
    return (hardware.price_low + hardware.price_high) / 2

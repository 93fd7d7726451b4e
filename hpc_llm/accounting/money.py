"""Money in the currency of the budget: prices of the catalogue, by a documented exchange rate."""

from dataclasses import replace

from hpc_llm.settings import BudgetSettings, HardwareSettings

__all__ = ["middle_price", "priced"]


def priced(hardware: HardwareSettings, budget: BudgetSettings) -> HardwareSettings:
    """Return the device with its prices in `budget.currency`.

    Raises `UserError` for a currency without an exchange rate.
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
    """Return the mean of the catalogue's lower and higher price per device-hour, or None."""
    if hardware.price_low is None or hardware.price_high is None:
        return None
    return (hardware.price_low + hardware.price_high) / 2

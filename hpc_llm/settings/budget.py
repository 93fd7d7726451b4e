"""Settings of the budget (`conf/budget/`): limits of a run, and its currency."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, positive

__all__ = ["BudgetSettings"]


@dataclass(kw_only=True)
class BudgetSettings:
    """Limits of a run's cost, including lost work. At a limit it saves a checkpoint and ends."""

    money: float | None = positive(1e15)
    """In `currency`; null: no limit."""
    gpu_hours: float | None = positive(1e12)
    """Allocated GPUs x hours; null: no limit."""
    pf_days: float | None = positive(1e12)
    """Exact model FLOPs in petaFLOP/s-days; null: no limit."""
    currency: str | None
    """Currency of all amounts shown (ISO 4217); null: that of the device's price."""
    rates: dict[str, float | None] = positive(1e12)
    """Units of each currency per US dollar; null: unknown."""
    rates_source: str
    """Source and date of the rates."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "budget")
        if self.currency is not None:
            self.rate(self.currency)

    def rate(self, currency: str) -> float:
        """Return the units of `currency` per US dollar; raises `UserError` if unknown."""
        rate = self.rates.get(currency)
        if rate is None:
            known = ", ".join(name for name, value in self.rates.items() if value is not None)
            raise UserError(
                "currency",
                currency,
                "has no exchange rate",
                f"set budget.rates.{currency}=RATE (per US dollar), or choose one of {known}",
            )
        return rate

"""Settings of the budget (`conf/budget/`): where a run stops, and its currency."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_positive

__all__ = ["BudgetSettings"]


@dataclass(kw_only=True)
class BudgetSettings:
    """What a run may spend, lost work included. It then saves a checkpoint and ends."""

    money: float | None
    """In `currency`; null: no limit."""
    gpu_hours: float | None
    """Allocated GPUs x hours; null: no limit."""
    pf_days: float | None
    """Exact model FLOPs in petaFLOP/s-days; null: no limit."""
    currency: str | None
    """Currency of all money that is shown (ISO 4217); null: that of the device's price."""
    rates: dict[str, float | None]
    """How much of each currency one US dollar is; null: not known."""
    rates_source: str
    """Where the rates come from, and of when they are."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("money", "gpu_hours", "pf_days"):
            if getattr(self, key) is not None:
                require_positive(f"budget.{key}", getattr(self, key))
        for currency, rate in self.rates.items():
            if rate is not None:
                require_positive(f"budget.rates.{currency}", rate)
        if self.currency is not None:
            self.rate(self.currency)

    def rate(self, currency: str) -> float:
        """How much of `currency` one US dollar is; `UserError` where that is not known."""
        rate = self.rates.get(currency)
        if rate is None:
            known = ", ".join(name for name, value in self.rates.items() if value is not None)
            raise UserError(
                "currency",
                currency,
                "has no exchange rate",
                f"give budget.rates.{currency}=(what one US dollar costs), or choose one of "
                f"{known}",
            )
        return rate

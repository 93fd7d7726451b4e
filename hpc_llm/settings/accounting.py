"""Settings of the accountant (`conf/accounting/`)."""

from dataclasses import dataclass

__all__ = ["AccountingSettings"]


@dataclass(kw_only=True)
class AccountingSettings:
    """How the bill is checked."""

    verify: bool
    """Before a training stage: compare its FLOPs with a count on the model itself, once."""

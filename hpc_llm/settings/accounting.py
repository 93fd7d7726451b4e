"""Settings of the cost accounting (`conf/accounting/`)."""

from dataclasses import dataclass

__all__ = ["AccountingSettings"]


@dataclass(kw_only=True)
class AccountingSettings:
    """How counted costs are verified."""

    verify: bool
    """Before each training stage, compare its FLOPs with a count on the model itself, once."""

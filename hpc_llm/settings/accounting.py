"""Settings of the cost accounting (`conf/accounting/`)."""

from dataclasses import dataclass

__all__ = ["AccountingSettings"]


@dataclass(kw_only=True)
class AccountingSettings:
    """Verification of the cost accounting."""

    verify: bool
    """Before each training stage, compare the FLOPs formula with a count on the model, once."""

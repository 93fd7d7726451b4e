"""Format numbers for people; unknown values are "n/a", never 0."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

__all__ = [
    "NOT_KNOWN",
    "change",
    "clock",
    "compact",
    "count",
    "decimal",
    "interval",
    "money",
    "scientific",
]

NOT_KNOWN = "n/a"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MAGNITUDES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def decimal(value: float | None, places: int = 3) -> str:
    """Return 1.234; from a thousand on 1,234."""
    if value is None:
        return NOT_KNOWN
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{places}f}"


def count(value: float | None) -> str:
    """Return an integer with separators: 12,345,678."""
    return NOT_KNOWN if value is None else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """Return three digits and a letter: 12.3M (k 10^3, M 10^6, B 10^9, T 10^12)."""
    if value is None:
        return NOT_KNOWN
    for size, letter in MAGNITUDES:
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def scientific(value: float | None) -> str:
    """Return three digits and a power of ten, `1.23×10¹⁵`; without the power if it is small."""
    if value is None:
        return NOT_KNOWN
    digits, power = f"{value:.2e}".split("e")
    if -3 <= int(power) < 4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{digits}×10{str(int(power)).translate(SUPERSCRIPTS)}"


def clock(seconds: float | None) -> str:
    """Return h:mm:ss, with days from one day on."""
    return NOT_KNOWN if seconds is None else str(timedelta(seconds=round(seconds)))


def change(value: float | None, base: float | None) -> str:
    """Return the change from `base` to `value` in percent, with its sign."""
    if value is None or not base:
        return NOT_KNOWN
    return f"{100 * (value / base - 1):+.1f}\N{NO-BREAK SPACE}%".replace("-", "−")


def interval(value: Mapping[str, Any] | None, places: int = 2, of: str = "") -> str:
    """Return `0.62 (0.50 to 0.75)` for {value, low, high}; without an interval `0.62`.

    `of` names what the interval is of, if that is not the value: `0.62 (of: 0.50 to 0.75)`.
    """
    if not value or value["value"] is None:
        return NOT_KNOWN
    text, low, high = decimal(value["value"], places), value["low"], value["high"]
    if low is None or high is None:
        return text
    return f"{text} ({of + ': ' * bool(of)}{decimal(low, places)} to {decimal(high, places)})"


def money(value: Mapping[str, Any] | None) -> str:
    """Return `12.30 USD` for {amount, currency}; less than 1 with two significant digits."""
    if not value or value["amount"] is None:
        return NOT_KNOWN
    amount = value["amount"]
    text = f"{amount:,.2f}" if amount >= 1 or amount == 0 else f"{amount:.2g}"
    return f"{text} {value['currency']}"

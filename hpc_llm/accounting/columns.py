"""Numbers and columns of plain-text tables."""

from collections.abc import Sequence

__all__ = ["columns", "figure"]


def figure(value: float | None) -> str:
    """Format a number with three significant digits, below 0.01 with two; None is n/a."""
    if value is None:
        return "n/a"
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) >= 0.01 else f"{value:#.2g}"


def columns(lines: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Align the cells of a table: the first `left` columns to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    written = []
    for line in lines:
        cells = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        written.append("  ".join(cells).rstrip())
    return written

"""The ledger: costs of a run, row by row, and how much of them is useful work.

Rank 0 appends one JSON line per logging interval. A run that is stopped and restarted keeps all its
costs in the ledger, lost work included: goodput = useful / spent. Duplicate rows count once,
damaged lines are skipped.

Each start of a process is a segment. Where it resumes from a checkpoint, its first row of the stage
has `reason="resume"` and the step of the checkpoint: work of earlier segments after that step is
lost. A segment with another first row started from scratch: all work of earlier ones is lost.

The rows of a segment have no gaps, so that their seconds sum to the wall time of the process, or of
the Slurm job where it is the job's first step.
"""

import math
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir import append_line, read_jsonl

__all__ = ["Ledger", "LedgerRow", "LedgerTotals", "Spending"]

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """Costs since the previous row of the same stage and segment."""

    run: str
    """Name of the run."""
    stage: str
    """Name of the stage."""
    segment: str
    """Unique name of the start of the process."""
    step: int
    """Completed steps of the stage."""
    tokens: int = 0
    """Tokens trained on, without padding."""
    padded_tokens: int = 0
    """Padding tokens that were computed."""
    squared_lengths: int = 0
    """Sum of squared document lengths, which the cost of attention depends on."""
    seconds: float = 0.0
    """Wall time."""
    flops: int = 0
    """Model FLOPs, exact and causal."""
    hardware_flops: int = 0
    """Hardware FLOPs: as executed, dense and with recomputation."""
    devices: int = 1
    """Allocated devices, as charged, busy or idle."""
    kind: str = "gpu"
    """gpu | cpu."""
    job: str | None = None
    """Slurm job id."""
    restart: int = 0
    """Slurm's restart count."""
    reason: str = "log"
    """Why this row was written: start, log, save, resume, projection, end, stop."""
    time: float = 0.0
    """When it was written, seconds since 1970."""
    device: str | None = None
    """The detected device by its name in the catalogue; None: that of the configuration."""
    joules: float | None = None
    """Measured energy of all devices since the last row with it; None: not measured."""
    projected_seconds: float | None = None
    """With reason=projection: remaining time of the stage, by the speed measured so far."""
    flops_source: str = "formula"
    """Where the FLOPs come from: formula | counted | 6n (see `StageFlops`)."""

    def __post_init__(self) -> None:
        """Check that no count is negative."""
        for key in ("step", "tokens", "padded_tokens", "seconds", "flops", "hardware_flops"):
            if getattr(self, key) < 0:
                raise UserError(f"ledger: {key}", getattr(self, key), "must be 0 or above")


@dataclass(kw_only=True)
class Spending:
    """Sums over rows of the ledger."""

    flops: int = 0
    """Model FLOPs."""
    hardware_flops: int = 0
    """FLOPs as executed."""
    tokens: int = 0
    """Tokens trained on, without padding."""
    padded_tokens: int = 0
    """Padding tokens."""
    seconds: float = 0.0
    """Wall time."""
    device_hours: float = 0.0
    """Allocated devices x hours."""
    joules: float = 0.0
    """Measured energy."""
    unmeasured_hours: float = 0.0
    """Device-hours whose energy was not measured."""

    def add(self, row: LedgerRow) -> None:
        """Add one row."""
        self.flops += row.flops
        self.hardware_flops += row.hardware_flops
        self.tokens += row.tokens
        self.padded_tokens += row.padded_tokens
        self.seconds += row.seconds
        hours = row.devices * row.seconds / 3600
        self.device_hours += hours
        self.joules += row.joules or 0.0
        self.unmeasured_hours += hours if row.joules is None else 0.0

    def add_all(self, other: "Spending") -> None:
        """Add another sum."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def energy_kwh(self, watts: float | None) -> float | None:
        """Return kWh: measured where available, else devices at `watts`; None where unknown."""
        if self.unmeasured_hours and watts is None:
            return None
        return self.joules / JOULES_PER_KWH + self.unmeasured_hours * (watts or 0.0) / 1000


@dataclass(kw_only=True)
class LedgerTotals:
    """Spent and useful sums of a ledger."""

    spent: Spending = field(default_factory=Spending)
    """All rows, lost work included."""
    useful: Spending = field(default_factory=Spending)
    """Rows whose work is in the result."""

    @property
    def goodput(self) -> float | None:
        """Useful share of the device-hours; None before anything is spent."""
        if not self.spent.device_hours:
            return None
        return self.useful.device_hours / self.spent.device_hours


KINDS: dict[str, Any] = {f.name: f.type for f in fields(LedgerRow)}
REQUIRED = [f.name for f in fields(LedgerRow) if f.default is MISSING]


def _is_row(line: dict[str, Any]) -> bool:
    """Whether a line is a row; a newer version may write other lines."""
    return all(name in line for name in REQUIRED)


def _has_type(value: object, kind: Any) -> bool:
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))


def _row(line: dict[str, Any]) -> LedgerRow | None:
    """Return the row of a line; None for another kind of line and for invalid values."""
    known = {key: value for key, value in line.items() if key in KINDS}
    if not _is_row(line) or not all(_has_type(known[key], KINDS[key]) for key in known):
        return None
    try:
        return LedgerRow(**known)
    except UserError:  # a negative count
        return None


def _deduplicated(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Keep one row for each (stage, segment, step, reason)."""
    unique: dict[tuple[str, str, int, str], LedgerRow] = {}
    for row in rows:
        unique.setdefault((row.stage, row.segment, row.step, row.reason), row)
    return list(unique.values())


def _surviving(rows: list[LedgerRow]) -> list[LedgerRow]:
    """Exclude the work that a later segment of the same stage repeated."""
    kept: list[LedgerRow] = []
    begun: set[tuple[str, str]] = set()
    for row in rows:
        if (row.stage, row.segment) not in begun:
            begun.add((row.stage, row.segment))
            last = row.step if row.reason == "resume" else -1
            kept = [old for old in kept if old.stage != row.stage or old.step <= last]
        kept.append(row)
    return kept


@dataclass(frozen=True)
class Ledger:
    """The ledger of a run: `runs/<run>/ledger.jsonl`."""

    path: Path

    def append(self, row: LedgerRow) -> None:
        """Append a row and fsync the file."""
        append_line(self.path, asdict(row))

    def rows(self, stage: str | None = None) -> list[LedgerRow]:
        """Read the rows in order, without duplicates; damaged lines are skipped."""
        rows = [row for line in read_jsonl(self.path) if (row := _row(line)) is not None]
        return _deduplicated(row for row in rows if stage in (None, row.stage))

    def damaged(self) -> int:
        """Count torn lines and lines with invalid values, which `rows` skips."""
        if not self.path.exists():
            return 0
        written = sum(bool(line.strip()) for line in self.path.read_bytes().splitlines())
        lines = list(read_jsonl(self.path))
        wrong = sum(_is_row(line) and _row(line) is None for line in lines)
        return max(0, written - len(lines)) + wrong  # a running job may have added one since

    def useful_until(self, stage: str, step: int) -> Spending:
        """Sum the work that a checkpoint of `stage` at `step` is based on."""
        spending = Spending()
        for row in _surviving(self.rows(stage)):
            if row.step <= step:
                spending.add(row)
        return spending

    def totals(self, stage: str | None = None) -> LedgerTotals:
        """Sum spent and useful work, of one stage or of all."""
        rows = self.rows(stage)
        totals = LedgerTotals()
        for row in rows:
            totals.spent.add(row)
        for row in _surviving(rows):
            totals.useful.add(row)
        return totals

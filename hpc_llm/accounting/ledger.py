"""What was spent, row by row, and how much of it is in the result.

Rank 0 appends one JSON line per logging interval. A run that is stopped and started again leaves
everything it spent in the ledger, the work that was lost too: goodput = useful / spent. Rows that
are written twice count once, a damaged line is passed over.

Each start of a process is a segment. Where it takes up a checkpoint, its first row of the stage
has `reason="resume"` and the checkpoint's step: what earlier segments did beyond that step is
lost. A segment whose first row is another one began anew: all that earlier ones did is lost.

The rows of a segment follow each other without a gap, so that their seconds add up to the wall
time of the process, or of the Slurm job where it is the job's first step.
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
    """What happened since the previous row of the same stage and segment."""

    run: str
    stage: str
    segment: str
    """A name that is new with each start of the process."""
    step: int
    """Steps of the stage that are done."""
    tokens: int = 0
    padded_tokens: int = 0
    """Tokens that were computed and carry no text."""
    squared_lengths: int = 0
    """Sum of the squares of the documents' lengths: what attention costs."""
    seconds: float = 0.0
    flops: int = 0
    """Model FLOPs, exact and causal."""
    hardware_flops: int = 0
    """FLOPs as carried out, dense and with recomputation."""
    devices: int = 1
    """Devices that are allocated, as billed, whether they work or not."""
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
    """The catalogue's name of the device that was found; None: that of the configuration."""
    joules: float | None = None
    """Energy of all devices since the last row that has it, measured; None: not measured."""
    projected_seconds: float | None = None
    """With reason=projection: what the stage still takes, by the rate measured so far."""

    def __post_init__(self) -> None:
        """Check that nothing counts backwards."""
        for key in ("step", "tokens", "padded_tokens", "seconds", "flops", "hardware_flops"):
            if getattr(self, key) < 0:
                raise UserError(f"ledger: {key}={getattr(self, key)}: must be 0 or above")


@dataclass(kw_only=True)
class Spending:
    """A sum over rows."""

    flops: int = 0
    hardware_flops: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    seconds: float = 0.0
    device_hours: float = 0.0
    """Allocated devices x hours."""
    joules: float = 0.0
    """Energy, where it was measured."""
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
        """Energy in kWh: measured where it was, else devices at `watts`; None where unknown."""
        if self.unmeasured_hours and watts is None:
            return None
        return self.joules / JOULES_PER_KWH + self.unmeasured_hours * (watts or 0.0) / 1000


@dataclass(kw_only=True)
class LedgerTotals:
    """Everything, and what is in the result."""

    spent: Spending = field(default_factory=Spending)
    useful: Spending = field(default_factory=Spending)

    @property
    def goodput(self) -> float | None:
        """Useful share of the device-hours; None before anything is spent."""
        if not self.spent.device_hours:
            return None
        return self.useful.device_hours / self.spent.device_hours


KINDS: dict[str, Any] = {f.name: f.type for f in fields(LedgerRow)}
REQUIRED = [f.name for f in fields(LedgerRow) if f.default is MISSING]


def _is_row(line: dict[str, Any]) -> bool:
    """Tell a row from a line of something else, which a newer version may write."""
    return all(name in line for name in REQUIRED)


def _has_type(value: object, kind: Any) -> bool:
    if isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value)):
        return False
    return isinstance(value, kind) or (isinstance(value, int) and isinstance(0.0, kind))


def _row(line: dict[str, Any]) -> LedgerRow | None:
    """Return the row of a line; None for something else, or values that cannot be."""
    known = {key: value for key, value in line.items() if key in KINDS}
    if not _is_row(line) or not all(_has_type(known[key], KINDS[key]) for key in known):
        return None
    try:
        return LedgerRow(**known)
    except UserError:  # counts backwards
        return None


def _deduplicated(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Keep one row for each (stage, segment, step, reason)."""
    unique: dict[tuple[str, str, int, str], LedgerRow] = {}
    for row in rows:
        unique.setdefault((row.stage, row.segment, row.step, row.reason), row)
    return list(unique.values())


def _surviving(rows: list[LedgerRow]) -> list[LedgerRow]:
    """Leave out what a later segment of the same stage did again."""
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
        """Append a row, synced to the disk."""
        append_line(self.path, asdict(row))

    def rows(self, stage: str | None = None) -> list[LedgerRow]:
        """Read the rows in order, each once; damaged lines are passed over."""
        rows = [row for line in read_jsonl(self.path) if (row := _row(line)) is not None]
        return _deduplicated(row for row in rows if stage in (None, row.stage))

    def damaged(self) -> int:
        """Count the lines that are torn or hold what cannot be; `rows` passes them over."""
        if not self.path.exists():
            return 0
        written = sum(bool(line.strip()) for line in self.path.read_bytes().splitlines())
        lines = list(read_jsonl(self.path))
        wrong = sum(_is_row(line) and _row(line) is None for line in lines)
        return max(0, written - len(lines)) + wrong  # a running job may have added one since

    def useful_until(self, stage: str, step: int) -> Spending:
        """Sum what a checkpoint of `stage` at `step` rests on."""
        spending = Spending()
        for row in _surviving(self.rows(stage)):
            if row.step <= step:
                spending.add(row)
        return spending

    def totals(self, stage: str | None = None) -> LedgerTotals:
        """Sum what was spent and what of it is in the result, of one stage or of all."""
        rows = self.rows(stage)
        totals = LedgerTotals()
        for row in rows:
            totals.spent.add(row)
        for row in _surviving(rows):
            totals.useful.add(row)
        return totals

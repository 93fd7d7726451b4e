"""Remaining time of a run from its measured speed, which replaces the estimate after 50 steps."""

from dataclasses import dataclass, field
from itertools import pairwise

__all__ = ["MEASURED_STEPS", "Pace", "Rest"]

MEASURED_STEPS = 50
WARM_UP = 10  # steps excluded: compilation, allocation, cold caches


@dataclass(frozen=True)
class Rest:
    """Remaining seconds at the speed of the fastest, the mean and the slowest interval."""

    low: float
    mid: float
    high: float


@dataclass
class Pace:
    """Wall time of the steps of one start, marked at every log line."""

    steps: int
    """Steps of the stage."""
    step_flops: int
    """Hardware FLOPs per step."""
    later_flops: int = 0
    """Hardware FLOPs of later training stages."""
    _marks: list[tuple[int, float]] = field(default_factory=list)
    """(step, clock)"""

    def mark(self, step: int, clock: float) -> None:
        """Record that `step` steps are done at `clock` (seconds)."""
        self._marks.append((step, clock))

    @property
    def measured(self) -> int:
        """Steps since the first mark."""
        return self._marks[-1][0] - self._marks[0][0] if self._marks else 0

    def rest(self) -> Rest | None:
        """Return the remaining time of this and later training stages; None before 50 steps."""
        return self._rest(self.later_flops)

    def stage_rest(self) -> Rest | None:
        """Return the remaining time of this stage; None before 50 steps."""
        return self._rest(0)

    def _rest(self, later_flops: int) -> Rest | None:
        if self.measured < MEASURED_STEPS:
            return None
        warm = [mark for mark in self._marks if mark[0] - self._marks[0][0] >= WARM_UP]
        marks = warm if len(warm) > 1 else self._marks
        rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(marks)]
        mean = (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
        left = max(0, self.steps - marks[-1][0]) + later_flops / self.step_flops
        return Rest(min(rates) * left, mean * left, max(rates) * left)

"""Batch plan: how the tokens of an optimizer step are split over ranks and accumulation steps.

rows = micro_rows * accumulation * data_parallel is derived here and nowhere else. A "row" in this
package is one sequence of a packed batch. Rows are split over the data-parallel ranks: those that
share a sequence or a weight read the same rows.

Two warm-ups stabilise early training. Batches grow from `train.batch_warmup.start` tokens (Brown et
al. 2020, arXiv 2005.14165, section 2.3). Sequences grow from `train.sequence_warmup.start` tokens
(Li et al. 2022, arXiv 2108.06084): full sequences are cut into shorter ones, so a step reads the
same text as without it, with less attention. DeepSpeed's curriculum learning is not used: it
truncates each sequence to the current length and never trains on the rest, it passes the length to
the model as an argument that transformers models do not accept, and its position in the data is
additional state to save. Both lengths are functions of the step alone, and so are the row indices.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from hpc_llm.errors import UserError
from hpc_llm.settings import StageSettings, TrainSettings

__all__ = ["BatchPlan", "Ramp", "plan_batches", "stage_steps"]


@dataclass(frozen=True)
class Ramp:
    """A step-wise ramp: the largest level below a line from the first level to the last."""

    levels: tuple[int, ...]
    """Ascending."""
    steps: int
    """The step at which the last level is reached."""

    def at(self, step: int) -> int:
        """Return the level at `step` (0-based)."""
        first, last = self.levels[0], self.levels[-1]
        line = first + (last - first) * min(step, self.steps) // self.steps
        return max(level for level in self.levels if level <= line)


@dataclass(frozen=True)
class BatchPlan:
    """One optimizer step in rows (sequences) of `sequence_length` tokens."""

    sequence_length: int
    rows: int
    """Rows per step over all ranks."""
    micro_rows: int
    """Rows per forward pass on one rank."""
    accumulation: int
    """Forward passes per step on one rank."""
    data_parallel: int
    """Shares of a step: ranks, divided by those that work on the same rows."""
    length_ramp: Ramp | None = None
    """Tokens per row during sequence warm-up."""
    rows_ramp: Ramp | None = None
    """Rows per step during batch warm-up; each level is a multiple of the number of ranks."""
    rows_before: int = 0
    """Rows read before the first step, by the stage from which this one branches."""
    batches_before: int = 0
    """Batches read by that stage: both warm-ups continue from there."""

    @property
    def tokens(self) -> int:
        """Positions per optimizer step after the warm-ups, including padding."""
        return self.rows * self.sequence_length

    def length(self, step: int) -> int:
        """Return the tokens per row at `step`."""
        if self.length_ramp is None:
            return self.sequence_length
        return self.length_ramp.at(self.batches_before + step)

    @cached_property
    def _begins(self) -> list[int]:
        """Rows read before each step of the warm-up, and before the first step after it."""
        ramp = self.rows_ramp
        if ramp is None:
            return [0]
        steps = range(self.batches_before, ramp.steps)
        return list(accumulate(map(ramp.at, steps), initial=0))

    def first_row(self, step: int) -> int:
        """Return the global index of the first row of `step`: the number of rows before it."""
        begins = self._begins
        if step < len(begins):
            return self.rows_before + begins[step]
        return self.rows_before + begins[-1] + (step - len(begins) + 1) * self.rows

    def indices(self, step: int, share: int) -> list[range]:
        """Return the global row indices of each accumulation step of a data-parallel `share`.

        All have the same number of accumulation steps and rows.
        """
        first, end = self.first_row(step), self.first_row(step + 1)
        rows = (end - first) // self.data_parallel
        begin = first + share * rows
        return [
            range(row, min(row + self.micro_rows, begin + rows))
            for row in range(begin, begin + rows, self.micro_rows)
        ]

    def steps_of(self, rows: float) -> int:
        """Return the number of steps that read this many rows."""
        begins = self._begins
        within = sum(begin < rows for begin in begins)
        if within < len(begins):
            return within
        return len(begins) - 1 + max(0, math.ceil((rows - begins[-1]) / self.rows))


def plan_batches(train: TrainSettings, data_parallel: int, positions: int | None) -> BatchPlan:
    """Split `train.batch_tokens` over `data_parallel` ranks.

    `positions` is the longest sequence that the model supports (None: any). Raises `UserError` if
    the sequence is longer, or if the rows cannot be split evenly.
    """
    length = train.sequence_length
    if positions and length > positions:
        raise UserError(
            "train.sequence_length",
            length,
            f"the model has {positions} positions",
            f"use train.sequence_length={positions} or less, or set model.rope_scaling",
        )
    rows = train.batch_tokens // length
    if rows % data_parallel:
        raise UserError(
            "train.batch_tokens",
            train.batch_tokens,
            f"{rows} sequences of {length} tokens cannot be split over {data_parallel} ranks",
            f"use a multiple of {length * data_parallel}",
        )
    share = rows // data_parallel
    micro = train.micro_rows(share)
    return BatchPlan(
        length,
        rows,
        micro,
        share // micro,
        data_parallel,
        length_ramp=_length_ramp(train),
        rows_ramp=_rows_ramp(train, data_parallel),
    )


def _length_ramp(train: TrainSettings) -> Ramp | None:
    """Return lengths that cut a row into equal parts."""
    start, full = train.sequence_warmup.start, train.sequence_length
    if start is None:
        return None
    if full % start:
        raise UserError(
            "train.sequence_warmup.start",
            start,
            f"does not divide train.sequence_length={full}",
            "use a divisor of it",
        )
    levels = (length for length in range(start, full + 1, start) if full % length == 0)
    return Ramp(tuple(levels), train.sequence_warmup.steps)


def _rows_ramp(train: TrainSettings, data_parallel: int) -> Ramp | None:
    """Return numbers of rows that split evenly over the ranks."""
    start, least = train.batch_warmup.start, train.sequence_length * data_parallel
    if start is None:
        return None
    if start % least:
        raise UserError(
            "train.batch_warmup.start",
            start,
            f"must be a multiple of train.sequence_length={train.sequence_length} times "
            f"{data_parallel} ranks",
            f"use a multiple of {least}",
        )
    first, full = start // train.sequence_length, train.batch_tokens // train.sequence_length
    return Ramp((*range(first, full, first), full), train.batch_warmup.steps)


def stage_steps(stage: StageSettings, plan: BatchPlan, rows_per_epoch: int) -> int:
    """Return the optimizer steps of a stage: `steps`, or fewer if `max_epochs` ends it first."""
    return min(stage.steps, max(1, plan.steps_of(stage.max_epochs * rows_per_epoch)))

"""How the tokens of one optimizer step are divided among ranks and micro-steps.

train_batch = micro_rows * accumulation * world_size is derived here and nowhere else.

Two warm-ups make early steps calmer. Batches grow from `train.batch_warmup.start` tokens (Brown et
al. 2020, arXiv 2005.14165, section 2.3). Rows grow from `train.sequence_warmup.start` tokens (Li et
al. 2022, arXiv 2108.06084): rows of the full length are cut into shorter ones, so a step reads the
same text as without it, at less attention. DeepSpeed's curriculum learning is not used for that: it
truncates each row to the current length and never trains on the rest, it hands the length to the
model as an argument that models of transformers do not know, and its place in the data is another
state to save. Both lengths are functions of the step alone, and so are the row numbers.
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
    """A quantity that grows in steps: the largest level below a line from the first to the last."""

    levels: tuple[int, ...]
    """Ascending."""
    steps: int
    """The last level is reached here."""

    def at(self, step: int) -> int:
        """The level of `step` (counted from 0)."""
        first, last = self.levels[0], self.levels[-1]
        line = first + (last - first) * min(step, self.steps) // self.steps
        return max(level for level in self.levels if level <= line)


@dataclass(frozen=True)
class BatchPlan:
    """One optimizer step in rows of `sequence_length` tokens."""

    sequence_length: int
    rows: int
    """Rows of all ranks."""
    micro_rows: int
    """Rows of one forward pass on one rank."""
    accumulation: int
    """Forward passes of one rank."""
    world_size: int
    length_ramp: Ramp | None = None
    """Tokens in a row while they grow."""
    rows_ramp: Ramp | None = None
    """Rows of a step while they grow; each level can be divided among the ranks."""
    rows_before: int = 0
    """Rows that were read before the first step: of the stage that this one branches from."""
    batches_before: int = 0
    """Batches of that stage: what grows has grown that far."""

    @property
    def tokens(self) -> int:
        """Positions of one optimizer step, padding included, when nothing grows any more."""
        return self.rows * self.sequence_length

    def length(self, step: int) -> int:
        """Tokens in a row of `step`."""
        if self.length_ramp is None:
            return self.sequence_length
        return self.length_ramp.at(self.batches_before + step)

    @cached_property
    def _begins(self) -> list[int]:
        """Rows before the steps of the warm-up, and before the one after it."""
        ramp = self.rows_ramp
        if ramp is None:
            return [0]
        steps = range(self.batches_before, ramp.steps)
        return list(accumulate(map(ramp.at, steps), initial=0))

    def first_row(self, step: int) -> int:
        """The global number of the first row of `step`: as many are read before it."""
        begins = self._begins
        if step < len(begins):
            return self.rows_before + begins[step]
        return self.rows_before + begins[-1] + (step - len(begins) + 1) * self.rows

    def indices(self, step: int, rank: int) -> list[range]:
        """Return the global row numbers of each micro-step of `rank` in `step`.

        All ranks have as many micro-steps, of as many rows.
        """
        first, end = self.first_row(step), self.first_row(step + 1)
        share = (end - first) // self.world_size
        begin = first + rank * share
        return [
            range(row, min(row + self.micro_rows, begin + share))
            for row in range(begin, begin + share, self.micro_rows)
        ]

    def steps_of(self, rows: float) -> int:
        """Return the steps in which this many rows are read."""
        begins = self._begins
        within = sum(begin < rows for begin in begins)
        if within < len(begins):
            return within
        return len(begins) - 1 + max(0, math.ceil((rows - begins[-1]) / self.rows))


def plan_batches(train: TrainSettings, world_size: int, positions: int | None) -> BatchPlan:
    """Divide `train.batch_tokens` among `world_size` ranks.

    `positions` is the longest sequence the model takes (None: any). Raises `UserError` when the
    sequence is longer than that or the rows cannot be divided.
    """
    length = train.sequence_length
    if positions and length > positions:
        raise UserError(
            "train.sequence_length",
            length,
            f"the model has {positions} positions",
            f"give train.sequence_length={positions} or less",
        )
    rows = train.batch_tokens // length
    if rows % world_size:
        raise UserError(
            "train.batch_tokens",
            train.batch_tokens,
            f"{rows} rows of {length} tokens cannot be divided among {world_size} ranks",
            f"give a multiple of {length * world_size}",
        )
    share = rows // world_size
    micro = train.micro_rows(share)
    return BatchPlan(
        length,
        rows,
        micro,
        share // micro,
        world_size,
        length_ramp=_length_ramp(train),
        rows_ramp=_rows_ramp(train, world_size),
    )


def _length_ramp(train: TrainSettings) -> Ramp | None:
    """Lengths that cut a row into equal parts."""
    start, full = train.sequence_warmup.start, train.sequence_length
    if start is None:
        return None
    if full % start:
        raise UserError(
            "train.sequence_warmup.start",
            start,
            f"does not divide train.sequence_length={full}",
            "give a divisor of it",
        )
    levels = (length for length in range(start, full + 1, start) if full % length == 0)
    return Ramp(tuple(levels), train.sequence_warmup.steps)


def _rows_ramp(train: TrainSettings, world_size: int) -> Ramp | None:
    """Rows that all ranks have an equal share of."""
    start, least = train.batch_warmup.start, train.sequence_length * world_size
    if start is None:
        return None
    if start % least:
        raise UserError(
            "train.batch_warmup.start",
            start,
            f"no multiple of train.sequence_length={train.sequence_length} times {world_size}"
            " ranks",
            f"give a multiple of {least}",
        )
    first, full = start // train.sequence_length, train.batch_tokens // train.sequence_length
    return Ramp((*range(first, full, first), full), train.batch_warmup.steps)


def stage_steps(stage: StageSettings, plan: BatchPlan, rows_per_epoch: int) -> int:
    """Return the optimizer steps of a stage: `steps`, or fewer where `max_epochs` ends first."""
    return min(stage.steps, max(1, plan.steps_of(stage.max_epochs * rows_per_epoch)))

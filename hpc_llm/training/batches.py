"""How the tokens of one optimizer step are divided among ranks and micro-steps.

train_batch = micro_rows * accumulation * world_size is derived here and nowhere else.
"""

import math
from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings import StageSettings, TrainSettings

__all__ = ["BatchPlan", "plan_batches", "stage_steps"]


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

    @property
    def tokens(self) -> int:
        """Positions of one optimizer step, padding included."""
        return self.rows * self.sequence_length

    def indices(self, step: int, rank: int) -> list[range]:
        """Return the global row numbers of each micro-step of `rank` in `step`."""
        first = step * self.rows + rank * self.micro_rows
        stride = self.micro_rows * self.world_size
        return [
            range(first + k * stride, first + k * stride + self.micro_rows)
            for k in range(self.accumulation)
        ]


def plan_batches(train: TrainSettings, world_size: int, positions: int | None) -> BatchPlan:
    """Divide `train.batch_tokens` among `world_size` ranks.

    `positions` is the longest sequence the model takes (None: any). Raises `UserError` when the
    sequence is longer than that or the rows cannot be divided.
    """
    length = train.sequence_length
    if positions and length > positions:
        raise UserError(
            f"train.sequence_length={length}: the model has {positions} positions; "
            f"give train.sequence_length={positions} or less"
        )
    rows = train.batch_tokens // length
    if rows % world_size:
        raise UserError(
            f"train.batch_tokens={train.batch_tokens}: {rows} rows of {length} tokens cannot be "
            f"divided among {world_size} ranks; give a multiple of {length * world_size}"
        )
    share = rows // world_size
    limit = share
    if train.micro_batch_tokens is not None:
        limit = train.micro_batch_tokens // length
        if limit < 1:
            raise UserError(
                f"train.micro_batch_tokens={train.micro_batch_tokens}: holds no row of "
                f"{length} tokens; give at least train.sequence_length"
            )
    micro = max(size for size in range(1, min(limit, share) + 1) if share % size == 0)
    return BatchPlan(length, rows, micro, share // micro, world_size)


def stage_steps(stage: StageSettings, plan: BatchPlan, rows_per_epoch: int) -> int:
    """Return the optimizer steps of a stage: `steps`, or fewer where `max_epochs` ends first."""
    return min(stage.steps, max(1, math.ceil(stage.max_epochs * rows_per_epoch / plan.rows)))

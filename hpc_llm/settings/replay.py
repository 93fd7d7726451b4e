"""Settings of replaying one training step (`conf/replay/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError

__all__ = ["ReplaySettings"]


@dataclass(kw_only=True)
class ReplaySettings:
    """`hpc-llm train replay.step=N`: do a step again and compare; nothing is written."""

    step: int | None
    """Step of the stage (its first is 1); null: train."""
    stage: str | None
    """Stage of the recipe; null: its last."""
    show: bool
    """Print the documents of the step's batch."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.step is not None and self.step < 1:
            raise UserError(f"replay.step={self.step}: steps are counted from 1")

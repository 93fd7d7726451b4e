"""Settings for rerunning one training step (`conf/rerun/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError

__all__ = ["RerunSettings"]


@dataclass(kw_only=True)
class RerunSettings:
    """`hpc-llm train rerun.step=N`: rerun a step and compare it; no result is written."""

    step: int | None
    """Step of the stage (1-based); null: train normally."""
    stage: str | None
    """Stage of the recipe; null: its last."""
    show: bool
    """Print the documents of the step's batch."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.step is not None and self.step < 1:
            raise UserError("rerun.step", self.step, "steps are counted from 1", "use 1 or more")

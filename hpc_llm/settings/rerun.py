"""Settings for rerunning one training step (`conf/rerun/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, count

__all__ = ["RerunSettings"]


@dataclass(kw_only=True)
class RerunSettings:
    """`hpc-llm train rerun.step=N`: rerun a step and compare it; no result is written."""

    step: int | None = count(10**12)
    """Step of the stage (1-based); null: train normally."""
    stage: str | None
    """Stage of the recipe; null: its last."""
    show: bool
    """Print the documents of the step's batch."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "rerun")

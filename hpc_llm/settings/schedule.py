"""Settings of the learning-rate schedule (`conf/schedule/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_choice, require_fraction

__all__ = ["ScheduleSettings"]


@dataclass(kw_only=True)
class ScheduleSettings:
    """The learning rate over a stage, relative to its peak."""

    name: str
    """constant | linear | cosine, each after a linear warm-up."""
    warmup_fraction: float
    """Share of the stage's steps in which the rate rises from 0 to its peak."""
    final_fraction: float
    """The rate at the end, relative to the peak (linear, cosine)."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("schedule.name", self.name, ("constant", "linear", "cosine"))
        require_fraction("schedule.warmup_fraction", self.warmup_fraction)
        require_fraction("schedule.final_fraction", self.final_fraction)

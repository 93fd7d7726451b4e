"""Settings of the guards that watch a run (`conf/guards/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["GuardSettings"]

POLICIES = ("stop", "skip", "rollback")


@dataclass(kw_only=True)
class GuardSettings:
    """Anomalies and the action for each."""

    not_finite: str
    """The loss or the gradient is NaN or infinite: stop | skip the step | rollback to the last
    checkpoint and skip these batches."""
    spike: str
    """The loss is far above its recent values: stop | skip | rollback."""
    spike_deviations: float
    """Spike threshold: scaled median absolute deviations above the median."""
    spike_window: int
    """Number of steps in the history of recent losses."""
    zero_gradient: str
    """The gradient is zero: stop | skip | rollback."""
    full_disk: str
    """The disk is full at a checkpoint: stop | skip this checkpoint and try the next."""
    most_skips: int
    """Maximum number of skipped or rolled-back steps of a stage before it stops; also of skipped
    checkpoints per start."""
    stall_minutes: float | None
    """Minutes without a step after which lagging ranks are reported and the run ends; null: never.
    """
    slow_factor: float | None
    """Report a rank, with its host, whose forward passes take this many times as long as the median
    rank's; null: never. Not under ZeRO-3, where ranks wait for each other in the forward pass."""

    def __post_init__(self) -> None:
        """Check the values."""
        for key in ("not_finite", "spike", "zero_gradient"):
            require_choice(f"guards.{key}", getattr(self, key), POLICIES)
        require_choice("guards.full_disk", self.full_disk, ("stop", "skip"))
        for key in ("spike_deviations", "spike_window"):
            require_positive(f"guards.{key}", getattr(self, key))
        if self.most_skips < 0:
            raise UserError(
                "guards.most_skips",
                self.most_skips,
                "must be 0 or above",
            )
        if self.stall_minutes is not None:
            require_positive("guards.stall_minutes", self.stall_minutes)
        if self.slow_factor is not None and self.slow_factor <= 1:
            raise UserError(
                "guards.slow_factor",
                self.slow_factor,
                "must be above 1, or null",
            )

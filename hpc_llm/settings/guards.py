"""Settings of the guards that watch a run (`conf/guards/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import check_fields, count, number, positive, require_choice

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
    spike_deviations: float = positive(1e6)
    """Spike threshold: scaled median absolute deviations above the median."""
    spike_window: int = count(10**6)
    """Number of steps in the history of recent losses."""
    zero_gradient: str
    """The gradient is zero: stop | skip | rollback."""
    full_disk: str
    """The disk is full at a checkpoint: stop | skip this checkpoint and try the next."""
    most_skips: int = count(10**9, 0)
    """Maximum number of skipped or rolled-back steps of a stage before it stops; also of skipped
    checkpoints per start."""
    stall_minutes: float | None = positive(1e6)
    """Minutes without a step after which lagging ranks are reported and the run ends; null: never.
    """
    slow_factor: float | None = number(1, 1e6, above=True)
    """Report a rank, with its host, whose forward passes take this many times as long as the median
    rank's; null: never. Not under ZeRO-3, where ranks wait for each other in the forward pass."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "guards")
        for key in ("not_finite", "spike", "zero_gradient"):
            require_choice(f"guards.{key}", getattr(self, key), POLICIES)
        require_choice("guards.full_disk", self.full_disk, ("stop", "skip"))

"""Settings of the guards that watch a run (`conf/guards/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["GuardSettings"]

POLICIES = ("stop", "skip", "rollback")


@dataclass(kw_only=True)
class GuardSettings:
    """What counts as an anomaly, and what is done then."""

    not_finite: str
    """The loss or the gradient is NaN or infinite: stop | skip the step | rollback to the last
    checkpoint and leave these batches out."""
    spike: str
    """The loss is far above its recent values: stop | skip | rollback."""
    spike_deviations: float
    """How far: median absolute deviations (scaled to standard ones) above the median."""
    spike_window: int
    """Steps whose losses are its recent values."""
    zero_gradient: str
    """Nothing learns: stop | skip | rollback."""
    full_disk: str
    """A checkpoint finds no room: stop | skip this one, and save again when the next is due."""
    most_skips: int
    """Steps of a stage that may be skipped or rolled back over before it stops all the same; and
    checkpoints, of one start."""
    stall_minutes: float | None
    """No step for so long: the ranks that are missing are named, and the run ends; null: never."""
    slow_factor: float | None
    """A rank whose forward passes take so many times the median rank's is named with its host;
    null: none is. Not under ZeRO-3, where they wait for each other."""

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

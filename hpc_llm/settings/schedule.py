"""Settings of the learning-rate schedule (`conf/schedule/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import check_fields, fraction, require_choice

__all__ = ["ScheduleSettings"]

SCHEDULES = ("constant", "linear", "cosine", "inverse_sqrt", "wsd")
DECAYS = ("linear", "cosine", "sqrt", "exponential")


@dataclass(kw_only=True)
class ScheduleSettings:
    """The learning rate over a stage, relative to its peak.

    Fractions are of the stage's steps, or of its tokens or FLOPs if `stages.NAME.tokens` or
    `stages.NAME.pf_days` limits it.
    """

    name: str
    """constant | linear | cosine | inverse_sqrt | wsd (warm-up, stable, decay), each after a
    linear warm-up."""
    warmup_fraction: float = fraction()
    """Fraction of the stage with linear warm-up from 0 to the peak learning rate."""
    final_fraction: float = fraction()
    """Final learning rate relative to the peak (linear, cosine, wsd)."""
    decay_fraction: float = fraction()
    """wsd: fraction of the stage, at its end, with decay."""
    decay: str
    """wsd: shape of the decay: linear | cosine | sqrt (1 - sqrt) | exponential."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_choice("schedule.name", self.name, SCHEDULES)
        require_choice("schedule.decay", self.decay, DECAYS)
        check_fields(self, "schedule")
        if self.name == "inverse_sqrt" and not self.warmup_fraction:
            raise UserError(
                "schedule.warmup_fraction",
                "0",
                "inverse_sqrt is defined relative to the warm-up",
                "use a fraction above 0",
            )
        if self.name == "wsd":
            self._check_wsd()

    def _check_wsd(self) -> None:
        if not 0 < self.decay_fraction <= 1 - self.warmup_fraction:
            raise UserError(
                "schedule.decay_fraction",
                self.decay_fraction,
                "must be above 0, and at most what schedule.warmup_fraction="
                f"{self.warmup_fraction} leaves of the stage",
            )
        if self.decay == "exponential" and not self.final_fraction:
            raise UserError(
                "schedule.final_fraction",
                "0",
                "an exponential decay never reaches 0",
                "use a fraction above 0, or schedule.decay=sqrt",
            )

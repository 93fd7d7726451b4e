"""Settings of the post-correction (`conf/correct/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_choice, require_positive

__all__ = ["CorrectSettings"]

RULES = ("no_harm", "weighted")


@dataclass(kw_only=True)
class CorrectSettings:
    """How the merging factor phi of `W = W0 + phi * (alpha / r) * B A` is chosen."""

    grid: list[float]
    """Grid of phi values; golden-section search refines between them."""
    rule: str
    """no_harm: of the factors that are equally good for the target language, the one that forgets
    least | weighted: the lowest J = BPB_target + beta * max(0, BPB_source - that of the base)."""
    beta: float
    """Weight of forgetting in `weighted`."""
    tolerance: float
    """Tolerance of phi at which the search ends."""
    bootstrap_samples: int
    """Bootstrap samples of the held-out documents for the confidence interval of phi."""

    def __post_init__(self) -> None:
        """Check the values."""
        if len(self.grid) < 3 or sorted(set(self.grid)) != self.grid or self.grid[0] < 0:
            rule = "must be three or more increasing values, each 0 or above"
            raise UserError("correct.grid", self.grid, rule, "for example correct.grid=[0.5,1,1.5]")
        require_choice("correct.rule", self.rule, RULES)
        if self.beta < 0:
            rule, fix = "must be 0 or above", "0 ignores forgetting"
            raise UserError("correct.beta", self.beta, rule, fix)
        require_positive("correct.tolerance", self.tolerance)
        require_positive("correct.bootstrap_samples", self.bootstrap_samples)

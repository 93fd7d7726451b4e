"""Settings of the post-correction (`conf/correct/`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import require_positive

__all__ = ["CorrectSettings"]


@dataclass(kw_only=True)
class CorrectSettings:
    """How the merging factor phi of `W = W0 + phi * (alpha / r) * B A` is chosen."""

    grid: list[float]
    """Values of phi that are tried first; golden-section search goes on between them."""
    beta: float
    """Weight of forgetting: J = BPB_target + beta * max(0, BPB_source(phi) - BPB_source(0))."""
    tolerance: float
    """The search ends when phi is known to this."""
    bootstrap_samples: int
    """Resamplings of the held-out documents behind the interval of phi."""

    def __post_init__(self) -> None:
        """Check the values."""
        if len(self.grid) < 3 or sorted(set(self.grid)) != self.grid or self.grid[0] < 0:
            raise UserError(
                f"correct.grid={self.grid}: must be three or more rising values of 0 and above"
            )
        if self.beta < 0:
            raise UserError(f"correct.beta={self.beta}: must be 0 or above")
        require_positive("correct.tolerance", self.tolerance)
        require_positive("correct.bootstrap_samples", self.bootstrap_samples)

"""Cost of the steps of one stage in FLOPs."""

from dataclasses import dataclass
from fractions import Fraction

from hpc_llm.accounting import Architecture, Method, StepFlops, parameter_count, step_flops
from hpc_llm.training.data.batches import BatchPlan

__all__ = ["StageFlops"]


@dataclass(frozen=True)
class StageFlops:
    """Exact cost of steps: a * tokens + b * sum(length^2).

    Model FLOPs count documents, with causal attention; hardware FLOPs count what is computed: dense
    attention over whole sequences, padding and recomputation.
    """

    per_token: Fraction
    per_square: Fraction
    per_position: Fraction
    per_squared_width: Fraction
    hardware_per_step: int
    """Of a step at full sequence length."""
    six_n: int
    """6 N, for the commonly quoted MFU."""

    @classmethod
    def of(cls, architecture: Architecture, method: Method, plan: BatchPlan) -> "StageFlops":
        """Return the costs, with a and b from two steps with known document lengths."""
        length = plan.sequence_length

        def cost(attention: str, lengths: list[int]) -> StepFlops:
            return step_flops(architecture, method, 1, length, attention, lengths)

        apart, whole = (cost("causal", lengths).model for lengths in ([1] * length, [length]))
        narrow, wide = (cost("dense", lengths).total for lengths in ([1] * length, [length]))
        return cls(
            *_line(apart, whole, length),
            *_line(narrow, wide, length),
            hardware_per_step=plan.rows * wide,
            six_n=6 * parameter_count(architecture).active,
        )

    def model(self, tokens: int, squares: int) -> int:
        """Return model FLOPs of `tokens` in documents whose squared lengths sum to `squares`."""
        return int(self.per_token * tokens + self.per_square * squares)

    def hardware(self, positions: int, squared_widths: int) -> int:
        """Return hardware FLOPs of `positions` in sequences with these summed squared lengths."""
        return int(self.per_position * positions + self.per_squared_width * squared_widths)


def _line(apart: int, whole: int, length: int) -> tuple[Fraction, Fraction]:
    """Return a and b from the costs of `length` tokens in documents of 1, and in one document."""
    square = Fraction(whole - apart, length * length - length)
    return Fraction(apart, length) - square, square

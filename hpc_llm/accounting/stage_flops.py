"""Cost of the steps of one training stage in FLOPs, as a function of its document lengths.

The coefficients come from the closed form (`flops.py`) where the family of the model has one, and
else from counts on the model itself at two sequence lengths (`hpc_llm.training.counting`).
"""

from dataclasses import dataclass
from fractions import Fraction

from hpc_llm.accounting.architecture import Architecture, parameter_count
from hpc_llm.accounting.flops import StepFlops, step_flops
from hpc_llm.accounting.method import Method

__all__ = ["SOURCES", "Count", "StageFlops"]

SOURCES = {
    "formula": "exact closed form",
    "counted": "counted on the model; causal attention as half of the dense count",
    "6n": "6 N per token: this model cannot be counted",
}
"""Where the coefficients come from."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """FLOPs of one sequence of `length` tokens, counted on the model with dense attention."""

    length: int
    """Tokens of the sequence."""
    model: int
    """Forward and backward pass, without recomputation."""
    hardware: int
    """The same as executed, with recomputation if the stage recomputes."""


@dataclass(frozen=True, kw_only=True)
class StageFlops:
    """Cost of steps: a * tokens + b * sum(length^2).

    Model FLOPs count documents, with causal attention; hardware FLOPs count what is computed: dense
    attention over whole sequences, padding and recomputation.
    """

    per_token: Fraction
    per_square: Fraction
    per_position: Fraction
    per_squared_width: Fraction
    hardware_per_sequence: int
    """Of one sequence at full length."""
    six_n: int
    """6 N, for the commonly quoted MFU."""
    source: str = "formula"
    """A key of `SOURCES`."""

    @classmethod
    def of(cls, architecture: Architecture, method: Method, length: int) -> "StageFlops":
        """Return the exact costs, from two sequences of `length` with known document lengths."""

        def cost(attention: str, lengths: list[int]) -> StepFlops:
            return step_flops(architecture, method, 1, length, attention, lengths)

        apart, whole = (cost("causal", lengths).model for lengths in ([1] * length, [length]))
        narrow, wide = (cost("dense", lengths).total for lengths in ([1] * length, [length]))
        per_token, per_square = _line(apart, whole, length)
        per_position, per_squared_width = _line(narrow, wide, length)
        return cls(
            per_token=per_token,
            per_square=per_square,
            per_position=per_position,
            per_squared_width=per_squared_width,
            hardware_per_sequence=wide,
            six_n=6 * parameter_count(architecture).active,
        )

    @classmethod
    def counted(cls, short: Count, long: Count, active: int) -> "StageFlops":
        """Return the costs fitted to counts at two lengths; `active` are parameters per token.

        Attention over l tokens has l (l + 1) / 2 causal pairs instead of l^2.
        """
        a, b = _parabola((short.length, short.model), (long.length, long.model))
        c, d = _parabola((short.length, short.hardware), (long.length, long.hardware))
        return cls(
            per_token=a + b / 2,
            per_square=b / 2,
            per_position=c,
            per_squared_width=d,
            hardware_per_sequence=long.hardware,
            six_n=6 * active,
            source="counted",
        )

    @classmethod
    def estimated(cls, active: int, length: int) -> "StageFlops":
        """Return 6 N per token (Kaplan et al. 2020, arXiv 2001.08361), for `active` parameters."""
        six_n, none = Fraction(6 * active), Fraction(0)
        return cls(
            per_token=six_n,
            per_square=none,
            per_position=six_n,
            per_squared_width=none,
            hardware_per_sequence=6 * active * length,
            six_n=6 * active,
            source="6n",
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


def _parabola(short: tuple[int, int], long: tuple[int, int]) -> tuple[Fraction, Fraction]:
    """Return a and b of a l + b l^2 through two points (length, FLOPs), with b >= 0.

    Scans that pad sequences to a block size give a negative b at short lengths: then the longer
    count alone gives a.
    """
    (x, y), (longer, cost) = short, long
    square = Fraction(cost * x - y * longer, x * longer * (longer - x))
    if square < 0:
        return Fraction(cost, longer), Fraction(0)
    return Fraction(cost, longer) - square * longer, square

"""The merging factor phi of `W = W0 + phi * lam * B A`, chosen on held-out text.

J(phi) = BPB_target(phi) + beta * max(0, BPB_source(phi) - BPB_source(0)) is measured on a grid,
then by golden section (Kiefer 1953) around the best grid point. A paired bootstrap over documents
gives the uncertainty of the minimum, and of all factors within one standard error of it the
smallest is chosen (Breiman et al. 1984): among equals the one that changes the model least.
This module sees losses only, neither texts nor model; never tune on a test benchmark.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.evaluation.bootstrap import (
    Interval,
    bits_per_byte,
    draw_documents,
    percentiles,
    resampled_bpb,
)
from hpc_llm.evaluation.segments import FEW_DOCUMENTS
from hpc_llm.settings import CorrectSettings

__all__ = ["Losses", "PhiChoice", "choose_phi"]

GOLDEN = (math.sqrt(5) - 1) / 2
Losses = Callable[[float], np.ndarray]
"""From a merging factor to the nats of each document, (documents,)."""


@dataclass(frozen=True, kw_only=True)
class PhiChoice:
    """The chosen merging factor and the search behind it."""

    value: float
    """The smallest factor within one standard error of the best."""
    low: float
    """95 % interval of the best factor, lower bound. It need not contain `value`."""
    high: float
    """95 % interval of the best factor, upper bound."""
    has_interval: bool
    """Whether there are documents enough for the interval; else it is the whole grid."""
    best: float
    """The factor with the lowest objective."""
    beta: float
    """Weight of forgetting in the objective."""
    at_edge: bool
    """`value` or `best` is an end of the grid: a wider grid may contain a better factor."""
    source_base_bpb: float | None
    """Bits per byte on source text at phi 0; None without source text."""
    curve: list[dict[str, Any]]
    """A point for each factor tried, ascending: `phi`, `target_bpb`, `target_low`, `target_high`,
    `source_bpb`, `source_low`, `source_high` (None without source text), `objective` and `from`
    (grid | golden)."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of `correct/phi.json`."""
        objective = "BPB(target)"
        if self.source_base_bpb is not None:
            objective += f" + {self.beta} · max(0, BPB(source) − BPB(source) at phi = 0)"
        return {
            "phi": {"value": self.value, "low": self.low, "high": self.high},
            "best": self.best,
            "beta": self.beta,
            "objective": f"J = {objective}",
            "has_interval": self.has_interval,
            "at_edge": self.at_edge,
            "source_base_bpb": self.source_base_bpb,
            "curve": self.curve,
        }


@dataclass(frozen=True)
class _Side:
    """Losses on the documents of one language; each factor is evaluated once."""

    losses: Losses
    byte_counts: np.ndarray  # (documents,)
    draws: np.ndarray  # (samples, documents)
    known: dict[float, np.ndarray] = field(default_factory=dict)

    def nll(self, phi: float) -> np.ndarray:
        if phi not in self.known:
            self.known[phi] = np.asarray(self.losses(phi), dtype=np.float64)
        return self.known[phi]

    def bpb(self, phi: float) -> float:
        return bits_per_byte(self.nll(phi), self.byte_counts)

    def resampled(self, phi: float) -> np.ndarray:
        return resampled_bpb(self.nll(phi), self.byte_counts, self.draws)

    def interval(self, phi: float) -> Interval:
        return Interval(self.bpb(phi), *percentiles(self.resampled(phi)))


@dataclass(frozen=True)
class _Objective:
    """J(phi); without source text bits per byte on target text alone."""

    target: _Side
    source: _Side | None
    beta: float

    def value(self, phi: float) -> float:
        """J(phi); infinite where the loss is NaN or infinite."""
        result = self.target.bpb(phi)
        if self.source is not None:
            loss = self.source.bpb(phi) - self.source.bpb(0.0)
            result += self.beta * float(np.maximum(0.0, loss))  # max() would lose a NaN
        return result if math.isfinite(result) else math.inf

    def resampled(self, phi: float) -> np.ndarray:
        """J(phi) of each resample, (samples,)."""
        result = self.target.resampled(phi)
        if self.source is None:
            return result
        loss = self.source.resampled(phi) - self.source.resampled(0.0)
        return result + self.beta * np.maximum(0.0, loss)


def choose_phi(
    target_nll: Losses,
    source_nll: Losses | None,
    target_bytes: np.ndarray,
    source_bytes: np.ndarray,
    settings: CorrectSettings,
    seed: int,
) -> PhiChoice:
    """Return the merging factor for losses that can be evaluated at any phi.

    `target_nll(phi)` and `source_nll(phi)` return the nats of each held-out document; the byte
    counts (documents,) are those of the same documents. `source_nll` None: the objective has no
    forgetting term and `source_bytes` is not read. Each factor is evaluated once; factors without
    a finite loss are skipped.
    Raises `UserError` when there is no text, or no factor of the grid has a finite loss.
    """
    target = _side(target_nll, target_bytes, settings.bootstrap_samples, seed)
    source = None
    if source_nll is not None:
        source = _side(source_nll, source_bytes, settings.bootstrap_samples, seed + 1)
    objective = _Objective(target, source, settings.beta)
    tried = _search(objective, settings)
    finite = {phi: value for phi, value in sorted(tried.items()) if math.isfinite(value)}
    if not finite:
        raise UserError(
            "correct.grid",
            settings.grid,
            "no factor has a finite loss",
            "train with a lower learning rate",
        )
    best = min(finite, key=finite.__getitem__)
    value, low, high = _decide(objective, finite, best)
    enough = int(np.count_nonzero(target.byte_counts)) >= FEW_DOCUMENTS
    return PhiChoice(
        value=value,
        low=low if enough else settings.grid[0],
        high=high if enough else settings.grid[-1],
        has_interval=enough,
        best=best,
        beta=settings.beta,
        at_edge=bool({value, best} & {settings.grid[0], settings.grid[-1]}),
        source_base_bpb=None if source is None else source.bpb(0.0),
        curve=[_point(objective, phi, settings.grid) for phi in finite],
    )


def _side(losses: Losses, byte_counts: np.ndarray, samples: int, seed: int) -> _Side:
    counts = np.asarray(byte_counts)
    return _Side(losses, counts, draw_documents(counts, samples, seed))


def _search(objective: _Objective, settings: CorrectSettings) -> dict[float, float]:
    """Return J at each factor tried: the grid, then golden section around its best point."""
    grid = settings.grid
    tried = {phi: objective.value(phi) for phi in grid}
    best = min(range(len(grid)), key=lambda index: tried[grid[index]])
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    inner, outer = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
    while right - left > settings.tolerance:
        for phi in (inner, outer):
            if phi not in tried:
                tried[phi] = objective.value(phi)
        if tried[inner] <= tried[outer]:
            right, outer = outer, inner
            inner = right - GOLDEN * (right - left)
        else:
            left, inner = inner, outer
            outer = left + GOLDEN * (right - left)
    return tried


def _decide(
    objective: _Objective, tried: dict[float, float], best: float
) -> tuple[float, float, float]:
    """Return the chosen factor and the interval of the best one; `tried` is ascending in phi.

    The interval is that of the factor with the lowest J in each resample. The standard error is
    that of J(phi) - J(best) on the same resamples.
    """
    phis = np.array(list(tried))
    resampled = np.stack([objective.resampled(phi) for phi in tried])  # (factors, samples)
    low, high = percentiles(phis[resampled.argmin(0)])
    errors = (resampled - resampled[list(tried).index(best)]).std(1)  # (factors,)
    excess = np.array(list(tried.values())) - tried[best]
    value = float(phis[np.flatnonzero(excess <= errors)[0]])
    return value, low, high


def _point(objective: _Objective, phi: float, grid: list[float]) -> dict[str, Any]:
    target = objective.target.interval(phi)
    source = None if objective.source is None else objective.source.interval(phi)
    return {
        "phi": phi,
        "target_bpb": target.value,
        "target_low": target.low,
        "target_high": target.high,
        "source_bpb": source and source.value,
        "source_low": source and source.low,
        "source_high": source and source.high,
        "objective": objective.value(phi),
        "from": "grid" if phi in grid else "golden",
    }

"""The merging factor phi of `W = W0 + phi * lam * B A`, chosen on held-out text.

Rule `no_harm`: BPB on target text is minimised on a grid, then by golden section (Kiefer 1953)
around its best point. Of all factors tried, those within one standard error of the best are equally
good for the target language (a paired bootstrap over documents; Breiman et al. 1984); the one with
the lowest BPB on source text is chosen. So the target language never pays for what it saves. Source
text is scored only at these factors, at 1 and at the ends of the grid, for the plot.

Rule `weighted` minimises J(phi) = BPB_target(phi) + beta * max(0, BPB_source(phi) - BPB_source of
the base model), and chooses the smallest factor within one standard error.

This module sees losses only, neither texts nor model; never tune on a test benchmark.
"""

import math
from collections.abc import Callable, Sequence
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
Losses = Callable[[Sequence[float]], list[np.ndarray]]
"""From merging factors to the nats of each document, (documents,) for each factor."""


@dataclass(frozen=True, kw_only=True)
class PhiChoice:
    """The chosen merging factor and the search behind it."""

    value: float
    """The factor that the rule chooses."""
    low: float
    """95 % interval of the best factor, lower bound. It need not contain `value`."""
    high: float
    """95 % interval of the best factor, upper bound."""
    has_interval: bool
    """Whether there are documents enough for the interval; else it is the whole grid."""
    best: float
    """The factor with the lowest objective."""
    rule: str
    """no_harm | weighted."""
    beta: float
    """Weight of forgetting in the objective of `weighted`."""
    at_edge: bool
    """`value` or `best` is an end of the grid: a wider grid may contain a better factor."""
    source_base_bpb: float | None
    """Bits per byte of the base model on source text, in the objective of `weighted`, else None."""
    curve: list[dict[str, Any]]
    """A point for each factor tried, ascending: `phi`, `target_bpb`, `target_low`, `target_high`,
    `source_bpb`, `source_low`, `source_high` (None where source text was not scored), `objective`
    and `from` (grid | golden)."""

    def point(self, phi: float) -> dict[str, Any] | None:
        """Return the point of the curve at `phi`, or None."""
        return next((point for point in self.curve if point["phi"] == phi), None)

    def cost(self) -> str:
        """Return what the choice changes against phi = 1, in BPB; empty if 1 was not tried."""
        one, chosen = self.point(1.0), self.point(self.value)
        if one is None or chosen is None:
            return ""
        sides = {"target": "target_bpb", "source": "source_bpb"}
        changes = [
            f"{side} {chosen[key] - one[key]:+.3f}"
            for side, key in sides.items()
            if None not in (one[key], chosen[key])
        ]
        return f"{', '.join(changes)} BPB against phi 1"

    def to_json(self) -> dict[str, Any]:
        """Return the content of `correct/phi.json`."""
        objective = "BPB(target)"
        if self.source_base_bpb is not None:
            objective += f" + {self.beta} · max(0, BPB(source) − BPB(source) of the base model)"
        return {
            "rule": self.rule,
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

    def score(self, phis: Sequence[float]) -> None:
        """Evaluate the losses at `phis` together, each factor once."""
        if new := [phi for phi in dict.fromkeys(phis) if phi not in self.known]:
            found = [np.asarray(nll, dtype=np.float64) for nll in self.losses(new)]
            self.known.update(zip(new, found, strict=True))

    def nll(self, phi: float) -> np.ndarray:
        self.score([phi])
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
    base_nll: np.ndarray | None
    """Nats of the base model on the source documents; None: the target's BPB alone counts."""

    def base_bpb(self) -> float | None:
        """BPB of the base model on source text, if it counts."""
        if self.source is None or self.base_nll is None:
            return None
        return bits_per_byte(self.base_nll, self.source.byte_counts)

    def score(self, phis: Sequence[float]) -> None:
        """Evaluate together what `value` needs at `phis`."""
        self.target.score(phis)
        if self.source is not None and self.base_nll is not None:
            self.source.score(phis)

    def value(self, phi: float) -> float:
        """J(phi); infinite where a loss is NaN or infinite."""
        result, base = self.target.bpb(phi), self.base_bpb()
        if self.source is not None and base is not None:
            lost = self.source.bpb(phi) - base
            result += self.beta * float(np.maximum(0.0, lost))  # max() would lose a NaN
        return result if math.isfinite(result) else math.inf

    def resampled(self, phi: float) -> np.ndarray:
        """J(phi) of each resample, (samples,)."""
        result = self.target.resampled(phi)
        if self.source is None or self.base_nll is None:
            return result
        base = resampled_bpb(self.base_nll, self.source.byte_counts, self.source.draws)
        return result + self.beta * np.maximum(0.0, self.source.resampled(phi) - base)


def choose_phi(
    target_nll: Losses,
    source_nll: Losses | None,
    sizes: tuple[np.ndarray, np.ndarray],
    settings: CorrectSettings,
    seed: int,
    base_nll: np.ndarray | None = None,
) -> PhiChoice:
    """Return the merging factor for losses that can be evaluated at any phi.

    `target_nll` and `source_nll` return the nats of each held-out document; `sizes` are
    the bytes (documents,) of the target and source documents. `source_nll` None: there is no source
    text, and of equally good factors the smallest is chosen. `base_nll` are the nats of the base
    model on the source documents, which the rule `weighted` needs. Each factor is evaluated once;
    factors without a finite loss are skipped.
    Raises `UserError` when there is no text, or no factor of the grid has a finite loss.
    """
    target_bytes, source_bytes = sizes
    target = _side(target_nll, target_bytes, settings.bootstrap_samples, seed)
    source = None
    if source_nll is not None:
        source = _side(source_nll, source_bytes, settings.bootstrap_samples, seed + 1)
    weighted = settings.rule == "weighted"
    objective = _Objective(target, source, settings.beta, base_nll if weighted else None)
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
    value, low, high = _decide(objective, finite, best, settings, sparing=not weighted)
    enough = int(np.count_nonzero(target.byte_counts)) >= FEW_DOCUMENTS
    return PhiChoice(
        value=value,
        low=low if enough else settings.grid[0],
        high=high if enough else settings.grid[-1],
        has_interval=enough,
        best=best,
        rule=settings.rule,
        beta=settings.beta,
        at_edge=bool({value, best} & {settings.grid[0], settings.grid[-1]}),
        source_base_bpb=objective.base_bpb(),
        curve=[_point(objective, phi, settings.grid) for phi in finite],
    )


def _side(losses: Losses, byte_counts: np.ndarray, samples: int, seed: int) -> _Side:
    counts = np.asarray(byte_counts)
    return _Side(losses, counts, draw_documents(counts, samples, seed))


def _search(objective: _Objective, settings: CorrectSettings) -> dict[float, float]:
    """Return J at each factor tried: the grid, then golden section around its best point."""
    grid = settings.grid
    objective.score(grid)
    tried = {phi: objective.value(phi) for phi in grid}
    best = min(range(len(grid)), key=lambda index: tried[grid[index]])
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    inner, outer = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
    while right - left > settings.tolerance:
        objective.score([phi for phi in (inner, outer) if phi not in tried])
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
    objective: _Objective,
    tried: dict[float, float],
    best: float,
    settings: CorrectSettings,
    *,
    sparing: bool,
) -> tuple[float, float, float]:
    """Return the chosen factor and the interval of the best one; `tried` is ascending in phi.

    Of factors within one standard error of the best, the one with the lowest BPB on source text is
    chosen if `sparing`, and the smallest else or on a tie.

    The interval is that of the factor with the lowest J in each resample. The standard error is
    that of J(phi) - J(best) on the same resamples.
    """
    phis = np.array(list(tried))
    resampled = np.stack([objective.resampled(phi) for phi in tried])  # (factors, samples)
    low, high = percentiles(phis[resampled.argmin(0)])
    errors = (resampled - resampled[list(tried).index(best)]).std(1)  # (factors,)
    excess = np.array(list(tried.values())) - tried[best]
    equal = [float(phi) for phi in phis[excess <= errors]]
    source = objective.source
    if not sparing or source is None:
        return equal[0], low, high
    shown = {1.0, settings.grid[0], settings.grid[-1]} & tried.keys()
    source.score([*equal, *sorted(shown)])
    finite = [phi for phi in equal if math.isfinite(source.bpb(phi))]
    return min(finite or equal, key=lambda phi: (source.bpb(phi), phi)), low, high


def _point(objective: _Objective, phi: float, grid: list[float]) -> dict[str, Any]:
    target = objective.target.interval(phi)
    side, source = objective.source, None
    if side is not None and phi in side.known and math.isfinite(side.bpb(phi)):
        source = side.interval(phi)
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

"""Agreement of annotators: Krippendorff's alpha for nominal data, and shares of equal votes."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from hpc_llm.evaluation.bootstrap import Interval, percentiles
from hpc_llm.evaluation.side_by_side.resampling import SAMPLES

__all__ = ["agreement_with_others", "krippendorff_alpha"]

Units = Sequence[Mapping[str, Hashable]]
"""The category that each annotator gave to each unit: `units[u][ANNOTATOR]`."""


def krippendorff_alpha(units: Units, seed: int = 0) -> Interval | None:
    """Return alpha with an interval over units; None if it is not defined.

    Krippendorff (2011), "Computing Krippendorff's alpha-reliability", nominal data. In a unit with
    m votes every ordered pair of votes adds 1 / (m - 1) to o[c, k]; with n_c = sum_k o[c, k] and
    T = sum n_c, alpha = 1 - (T - tr o)(T - 1) / (T^2 - sum n_c^2). 1: full agreement, 0: that of
    chance. Not defined with one category or without a unit that has two votes.
    """
    rated = [unit for unit in units if len(unit) > 1]
    names = sorted({category for unit in rated for category in unit.values()}, key=str)
    if len(names) < 2:
        return None
    place = {name: number for number, name in enumerate(names)}
    pairs = np.stack([_coincidences(unit, place) for unit in rated])  # (units, C, C)
    value = _alpha(pairs.sum(0)[None])[0]
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(rated), np.full(len(rated), 1 / len(rated)), size=SAMPLES)
    resampled = _alpha(np.tensordot(draws.astype(float), pairs, 1))
    low, high = percentiles(resampled[np.isfinite(resampled)])
    return Interval(float(value), low, high)


def _coincidences(unit: Mapping[str, Hashable], place: Mapping[Hashable, int]) -> np.ndarray:
    """Return o[c, k] of one unit (C, C)."""
    counts = np.zeros(len(place))
    for category in unit.values():
        counts[place[category]] += 1
    return (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)


def _alpha(coincidences: np.ndarray) -> np.ndarray:
    """Return alpha of coincidence matrices (..., C, C); NaN where only one category occurs."""
    totals = coincidences.sum(-1)  # n_c (..., C)
    total = totals.sum(-1)
    differing = total - np.trace(coincidences, axis1=-2, axis2=-1)
    expected = total**2 - (totals**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1 - differing * (total - 1) / np.where(expected > 0, expected, np.nan))


def agreement_with_others(units: Units, annotator: str) -> tuple[int, int]:
    """Return (equal, all) over the pairs of a vote of `annotator` and one of another annotator."""
    same = [
        unit[annotator] == category
        for unit in units
        if annotator in unit
        for name, category in unit.items()
        if name != annotator
    ]
    return sum(same), len(same)

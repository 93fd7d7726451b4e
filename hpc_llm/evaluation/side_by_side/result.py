"""The result of a study: win rates, strengths, agreement, and what may have biased them.

Repeats count for self-agreement only. Ties, and votes that both answers are bad, are half a win.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import binomtest

from hpc_llm.evaluation.bootstrap import Interval, percentiles
from hpc_llm.evaluation.side_by_side.agreement import agreement_with_others, krippendorff_alpha
from hpc_llm.evaluation.side_by_side.davidson import PRIOR, fit_strengths
from hpc_llm.evaluation.side_by_side.resampling import Draws, draw, mean_vote
from hpc_llm.evaluation.side_by_side.study import Study
from hpc_llm.evaluation.side_by_side.votes import BOTH_BAD, TIE, Vote

__all__ = ["evaluate"]

STRENGTH_SAMPLES = 200  # a fit for each


def evaluate(study: Study, votes: Sequence[Vote], seed: int = 0) -> dict[str, Any]:
    """Return the result of a study, as in `sbs/result.json`; every interval is of 95 %."""
    first = [vote for vote in votes if not vote.card.repeat]
    counted = _Counted(study, first, seed)
    came = list(dict.fromkeys(vote.annotator for vote in votes))
    return {
        "study": study.id,
        "models": list(study.models),
        "questions": len({vote.card.question for vote in first}),
        "annotators": len(came),
        "missing_annotators": [name for name in study.cards if name not in came],
        "votes": len(first),
        "pairs": [_pair(counted, *pair) for pair in combinations(study.models, 2)],
        "strengths": _strengths(counted),
        "agreement": _agreement(first),
        "self_agreement": _self_agreement(votes),
        "position": _share([vote.choice == "left" for vote in first if _decided(vote)]),
        "length": _length(study, counted),
        "by_annotator": {name: _annotator(name, votes) for name in came},
        "remarks": [
            {"annotator": v.annotator, "question": v.card.question, "remark": v.remark}
            for v in votes
            if v.remark
        ],
    }


@dataclass(frozen=True)
class _Counted:
    """First votes of a study, with their places in the resamples."""

    study: Study
    votes: Sequence[Vote]
    seed: int

    @cached_property
    def questions(self) -> dict[str, int]:
        return _numbered(vote.card.question for vote in self.votes)

    @cached_property
    def annotators(self) -> dict[str, int]:
        return _numbered(vote.annotator for vote in self.votes)

    @cached_property
    def draws(self) -> Draws:
        return draw(max(1, len(self.questions)), max(1, len(self.annotators)), self.seed)

    def mean(self, votes: Sequence[Vote], value: Callable[[Vote], float]) -> dict[str, Any]:
        """Return the mean of `value` over votes with its two-way interval, as JSON."""
        found = mean_vote(
            [value(vote) for vote in votes],
            [self.questions[vote.card.question] for vote in votes],
            [self.annotators[vote.annotator] for vote in votes],
            self.draws,
        )
        return _json(found, len(votes))


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(dict.fromkeys(names))}


def _json(found: Interval | None, number: int) -> dict[str, Any]:
    empty = {"value": None, "low": None, "high": None}
    return {**(empty if found is None else asdict(found)), "n": number}


def _decided(vote: Vote) -> bool:
    return vote.outcome not in (TIE, BOTH_BAD)


def _points(vote: Vote, model: str) -> float:
    """Return 1 for a win of `model`, 0 for a loss, 1/2 for neither."""
    return float(vote.outcome == model) if _decided(vote) else 0.5


def _pair(counted: _Counted, other: str, model: str) -> dict[str, Any]:
    """Return how `model` did against `other`, which is before it in `sbs.models`."""
    votes = [vote for vote in counted.votes if vote.pair == {model, other}]
    outcomes = [vote.outcome for vote in votes]
    return {
        "model": model,
        "against": other,
        "wins": outcomes.count(model),
        "ties": outcomes.count(TIE),
        "both_bad": outcomes.count(BOTH_BAD),
        "losses": outcomes.count(other),
        "win_rate": counted.mean(votes, lambda vote: _points(vote, model)),
        "sign_test": _sign_test(votes, model),
    }


def _sign_test(votes: Sequence[Vote], model: str) -> dict[str, Any]:
    """Return on how many questions `model` was better, worse and equal, and the two-sided p."""
    by_question: dict[str, list[float]] = {}
    for vote in votes:
        by_question.setdefault(vote.card.question, []).append(_points(vote, model) - 0.5)
    signs = [float(np.sign(sum(points))) for points in by_question.values()]
    better, worse = signs.count(1.0), signs.count(-1.0)
    p = float(binomtest(better, better + worse).pvalue) if better + worse else None
    return {"better": better, "worse": worse, "equal": signs.count(0.0), "p": p}


def _strengths(counted: _Counted) -> dict[str, Any]:
    """Return Davidson's strengths, log p with sum 0, with intervals of the two-way bootstrap."""
    models = list(counted.study.models)
    if not counted.votes:
        return {"models": {}, "log_tie": None, "prior": PRIOR}
    tables = _outcome_tables(counted, models)  # (2, m, m, questions, annotators)
    whole = fit_strengths(*tables.sum((-1, -2)))
    questions = counted.draws.questions[:STRENGTH_SAMPLES]
    annotators = counted.draws.annotators[:STRENGTH_SAMPLES]
    drawn = np.einsum("sq,kijqa,sa->skij", questions, tables, annotators, optimize=True)
    fits = np.stack([fit_strengths(*one).log_strength for one in drawn])  # (samples, m)
    found = {
        name: {"value": float(whole.log_strength[i]), **_ends(fits[:, i])}
        for i, name in enumerate(models)
    }
    return {"models": found, "log_tie": whole.log_tie, "prior": PRIOR}


def _ends(values: np.ndarray) -> dict[str, float]:
    low, high = percentiles(values)
    return {"low": low, "high": high}


def _outcome_tables(counted: _Counted, models: Sequence[str]) -> np.ndarray:
    """Return wins and ties (2, m, m, questions, annotators): [0, i, j] are wins of i over j."""
    place = _numbered(models)
    size = len(models)
    found = np.zeros((2, size, size, len(counted.questions), len(counted.annotators)))
    for vote in counted.votes:
        first, second = sorted(place[name] for name in vote.pair)
        if _decided(vote) and place[vote.outcome] == second:
            first, second = second, first
        at = (counted.questions[vote.card.question], counted.annotators[vote.annotator])
        found[(int(not _decided(vote)), first, second, *at)] += 1
    return found


def _units(votes: Sequence[Vote]) -> list[dict[str, str]]:
    """Return the outcome by annotator for each question and pair of models."""
    units: dict[tuple[str, frozenset[str]], dict[str, str]] = {}
    for vote in votes:
        units.setdefault((vote.card.question, vote.pair), {})[vote.annotator] = vote.outcome
    return list(units.values())


def _agreement(votes: Sequence[Vote]) -> dict[str, Any]:
    """Return Krippendorff's alpha over the outcomes: a model, tie or both bad."""
    units = _units(votes)
    return _json(krippendorff_alpha(units), sum(len(unit) > 1 for unit in units))


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    """Return a share with its exact binomial interval (Clopper and Pearson 1934)."""
    if not hits:
        return _json(None, 0)
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="exact")
    value = sum(hits) / len(hits)
    return _json(Interval(value, float(found.low), float(found.high)), len(hits))


def _repeated(votes: Sequence[Vote]) -> list[tuple[Vote, Vote]]:
    """Return (first vote, vote on the repeat) of the same annotator and question."""
    first = {(v.annotator, v.card.question): v for v in votes if not v.card.repeat}
    again = [vote for vote in votes if vote.card.repeat]
    keys = [(vote.annotator, vote.card.question) for vote in again]
    return [(first[key], vote) for key, vote in zip(keys, again, strict=True) if key in first]


def _self_agreement(votes: Sequence[Vote]) -> dict[str, Any]:
    """Return how often an annotator gave the same outcome on a repeat, whose sides are swapped."""
    return _share([before.outcome == after.outcome for before, after in _repeated(votes)])


def _length(study: Study, counted: _Counted) -> dict[str, Any]:
    """Return the win rate of the longer answer, in characters."""

    def longer(vote: Vote) -> str | None:
        lengths = study.lengths[vote.card.question]
        left, right = vote.card.left, vote.card.right
        if lengths[left] == lengths[right]:
            return None
        return left if lengths[left] > lengths[right] else right

    votes = [vote for vote in counted.votes if longer(vote) is not None]
    return counted.mean(votes, lambda vote: _points(vote, str(longer(vote))))


def _annotator(name: str, votes: Sequence[Vote]) -> dict[str, Any]:
    """Return the numbers of one annotator: low agreement or few seconds may be a careless one."""
    own = [vote for vote in votes if vote.annotator == name]
    first = [vote for vote in own if not vote.card.repeat]
    equal, compared = agreement_with_others(
        _units([vote for vote in votes if not vote.card.repeat]), name
    )
    seconds = [vote.seconds for vote in own if vote.seconds is not None]
    return {
        "votes": len(first),
        "ties": sum(vote.outcome == TIE for vote in first),
        "both_bad": sum(vote.outcome == BOTH_BAD for vote in first),
        "left": sum(vote.choice == "left" for vote in first),
        "right": sum(vote.choice == "right" for vote in first),
        "agreement": equal / compared if compared else None,
        "self_agreement": _self_agreement(own)["value"],
        "median_seconds": float(np.median(seconds)) if seconds else None,
    }

"""Win rates with intervals over questions and annotators.

Votes of one annotator, and votes on one question, are not independent. Each resample draws
questions and, independently, annotators, both with replacement; a vote weighs the product of the
two counts (the pigeonhole bootstrap of Owen 2007, arXiv 0711.4009). Its intervals are a little too
wide rather than too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc_llm.evaluation.bootstrap import Interval, percentiles

__all__ = ["SAMPLES", "Draws", "draw", "mean_vote"]

SAMPLES = 1000


@dataclass(frozen=True)
class Draws:
    """How often each question and each annotator is drawn in each resample."""

    questions: np.ndarray
    """(samples, questions), float64."""
    annotators: np.ndarray
    """(samples, annotators), float64."""

    def sums(self, table: np.ndarray) -> np.ndarray:
        """Return the sums (samples,) of `table` (questions, annotators), weighted by the draws."""
        return ((self.questions @ table) * self.annotators).sum(1)


def draw(questions: int, annotators: int, seed: int, samples: int = SAMPLES) -> Draws:
    """Return the draws for a study of this size."""
    rng = np.random.default_rng(seed)

    def counts(size: int) -> np.ndarray:
        drawn = rng.multinomial(size, np.full(size, 1 / size), size=samples)
        return drawn.astype(np.float64)

    return Draws(counts(questions), counts(annotators))


def mean_vote(
    values: Sequence[float], questions: Sequence[int], annotators: Sequence[int], draws: Draws
) -> Interval | None:
    """Return the mean of votes with its interval; None without votes.

    `values` (votes,) such as 1 for a win, 0.5 for a tie, 0 for a loss; `questions` and `annotators`
    (votes,) are the places of each vote in `draws`.
    """
    if not len(values):
        return None
    shape = (draws.questions.shape[1], draws.annotators.shape[1])
    total, number = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (questions, annotators), values)
    np.add.at(number, (questions, annotators), 1.0)
    weights = draws.sums(number)
    drawn = weights > 0  # a resample may miss all votes of a small study
    low, high = percentiles(draws.sums(total)[drawn] / weights[drawn])
    return Interval(float(np.mean(values)), low, high)

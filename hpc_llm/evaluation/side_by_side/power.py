"""The smallest win rate above 1/2 that a study detects, before it is made.

A vote has variance 1/4 at a win rate of 1/2 without ties. A part q^2 of it is between questions
(some suit one model), a part a^2 between annotators; the rest is of single votes. The mean over Q
questions and A annotators, k votes for each question, has the variance
q^2 / Q + a^2 / A + (1/4 - q^2 - a^2) / (Q k).
"""

import math
from dataclasses import dataclass

from scipy.stats import norm

__all__ = ["LEVEL", "POWER", "Power", "study_power"]

LEVEL, POWER = 0.05, 0.8
"""Two-sided significance level, and probability of finding the difference."""


@dataclass(frozen=True, kw_only=True)
class Power:
    """What a study can detect."""

    votes: int
    standard_error: float
    win_rate: float
    """Smallest win rate above 1/2 that differs from it with probability `POWER`; 1: none does."""


def study_power(
    questions: int, annotators: int, per_question: int, question_sd: float, annotator_sd: float
) -> Power:
    """Return what a study of this size can detect, under assumed standard deviations."""
    votes = questions * per_question
    rest = 0.25 - question_sd**2 - annotator_sd**2
    variance = question_sd**2 / questions + annotator_sd**2 / annotators + rest / votes
    error = math.sqrt(variance)
    difference = float(norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) * error
    return Power(votes=votes, standard_error=error, win_rate=min(1.0, 0.5 + difference))

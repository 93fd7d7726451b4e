"""Texts of answers, compared as SQuAD does (Rajpurkar et al. 2016, arXiv 1606.05250).

Case, punctuation and repeated white space do not count. Articles do: Russian has none.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from hpc_llm.errors import UserError
from hpc_llm.evaluation.tasks.questions import Outcome, Scored

__all__ = ["bag_f1", "best_answer", "exact_match", "guessed_text", "normalise"]


def normalise(text: str) -> str:
    """Return `text` in lower case, without punctuation, words separated by single spaces."""
    kept = (c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    return " ".join("".join(kept).split())


def exact_match(answer: str, accepted: str) -> float:
    """Return 1 if both are equal once normalised, else 0."""
    return float(normalise(answer) == normalise(accepted))


def bag_f1(answer: str, accepted: str) -> float:
    """Return the F1 of the words of `answer` as a bag against those of `accepted`."""
    given, expected = Counter(normalise(answer).split()), Counter(normalise(accepted).split())
    if not given or not expected:
        return float(given == expected)
    return 2 * (given & expected).total() / (given.total() + expected.total())


def best_answer(metric: str, compare: Callable[[str, str], float], scored: Scored) -> Outcome:
    """Return the highest value of `compare` between the answer and an accepted one.

    Raises `UserError` about `metric` for a task without accepted answers.
    """
    if not scored.answers:
        rule, fix = "compares texts of answers, which this kind of task lacks", "use kind: generate"
        raise UserError("metric", metric, rule, fix)
    value = max(compare(scored.answer or "", accepted) for accepted in scored.answers)
    return Outcome(value=value, prediction=None)


def guessed_text(
    compare: Callable[[str, str], float], units: Sequence[Sequence[Scored]]
) -> float | None:
    """Return the mean of `compare` over choices taken at random; None for generated answers."""
    found = [scored for unit in units for scored in unit]
    if not all(scored.texts for scored in found):
        return None
    values = [
        sum(max(compare(text, accepted) for accepted in one.answers) for text in one.texts)
        / len(one.texts)
        for one in found
    ]
    return sum(values) / len(values)

"""metric: exact: exact match: the answer equals an accepted one, but for case and punctuation."""

from functools import partial

from hpc_llm.evaluation.tasks.questions import Outcome, Scored
from hpc_llm.evaluation.tasks.texts import best_answer, exact_match, guessed_text
from hpc_llm.evaluation.tasks.totals import Total

__all__ = ["TOTAL", "outcome"]


def outcome(scored: Scored) -> Outcome:
    """Return the best value over the accepted answers. Raises `UserError` if there are none."""
    return best_answer("exact", exact_match, scored)


TOTAL = Total(unit="exact match", chance=partial(guessed_text, exact_match))

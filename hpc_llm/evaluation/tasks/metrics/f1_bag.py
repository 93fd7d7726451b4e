"""metric: f1_bag: F1 of the answer's words as a bag, against the nearest accepted answer."""

from functools import partial

from hpc_llm.evaluation.tasks.questions import Outcome, Scored
from hpc_llm.evaluation.tasks.texts import bag_f1, best_answer, guessed_text
from hpc_llm.evaluation.tasks.totals import Total

__all__ = ["TOTAL", "outcome"]


def outcome(scored: Scored) -> Outcome:
    """Return the best value over the accepted answers. Raises `UserError` if there are none."""
    return best_answer("f1_bag", bag_f1, scored)


TOTAL = Total(unit="F1", chance=partial(guessed_text, bag_f1))

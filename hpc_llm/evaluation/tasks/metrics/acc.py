"""metric: acc: accuracy of the choice with the highest log-likelihood."""

from hpc_llm.evaluation.tasks.questions import Outcome, Scored, by_highest

__all__ = ["outcome"]


def outcome(scored: Scored) -> Outcome:
    """Predict argmax S(c)."""
    return by_highest(scored.scores, scored.gold)

"""metric: acc_bytes: accuracy by log-likelihood per byte.

Long choices have low likelihoods; bytes, unlike tokens, do not depend on the vocabulary.
"""

from hpc_llm.evaluation.tasks.questions import Outcome, Scored, by_highest

__all__ = ["outcome"]


def outcome(scored: Scored) -> Outcome:
    """Predict argmax S(c) / bytes(c)."""
    values = [score / size for score, size in zip(scored.scores, scored.bytes, strict=True)]
    return by_highest(values, scored.gold)

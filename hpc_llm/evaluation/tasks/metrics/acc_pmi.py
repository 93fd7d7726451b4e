"""metric: acc_pmi: accuracy by pointwise mutual information of question and choice.

The prior of a choice is its score after `neutral_prompt` (Holtzman et al. 2021, arXiv 2104.08315).
"""

from hpc_llm.errors import UserError
from hpc_llm.evaluation.tasks.questions import Outcome, Scored, by_highest

__all__ = ["outcome"]


def outcome(scored: Scored) -> Outcome:
    """Predict argmax S(c | prompt) - S(c | neutral prompt). Raises `UserError` without the latter.

    An empty neutral prompt scores choices at the start of a document.
    """
    if scored.neutral is None:
        rule = "needs the score after a neutral_prompt"
        raise UserError("metric", "acc_pmi", rule, "set neutral_prompt in the task's YAML file")
    values = [score - prior for score, prior in zip(scored.scores, scored.neutral, strict=True)]
    return by_highest(values, scored.gold)

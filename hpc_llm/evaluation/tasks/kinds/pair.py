"""kind: pair: an acceptable and an unacceptable text, scored as whole documents.

The minimal pairs of BLiMP (Warstadt et al. 2020, arXiv 1912.00582).
"""

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Asked

__all__ = ["ask"]


def ask(record: Fields) -> Asked:
    """Return both texts without a prompt; the first is correct.

    Raises `UserError` for a task with a prompt or gold, and unless there are two texts.
    """
    for key in ("prompt", "gold", "neutral_prompt"):
        if getattr(record.task, key):
            raise record.unfit(key, "a pair has none: its first text is the acceptable one")
    choices = record.choices()
    if len(choices) != 2:
        raise record.unfit("choices", f"a pair has two texts, not {len(choices)}")
    return Asked(prompt="", choices=choices, gold=0)

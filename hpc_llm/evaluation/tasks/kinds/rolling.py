"""kind: rolling: whole texts, scored as held-out documents are."""

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Asked

__all__ = ["ask"]


def ask(record: Fields) -> Asked:
    """Return the text, which `prompt` gives. Raises `UserError` for a task with choices or gold."""
    for key in ("choices", "gold", "neutral_prompt"):
        if getattr(record.task, key):
            raise record.unfit(key, "a text has none: prompt is the whole text")
    return Asked(prompt="", choices=(record.prompt(),), gold=0)

"""kind: choice: several continuations of a prompt, of which one is correct."""

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Asked

__all__ = ["ask"]


def ask(record: Fields) -> Asked:
    """Return the prompt, the choices and the index of the correct one."""
    choices = record.choices()
    return Asked(
        prompt=record.prompt(),
        separator=record.task.separator,
        choices=choices,
        gold=record.gold(choices),
        neutral_prompt=record.neutral_prompt(),
    )

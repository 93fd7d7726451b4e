"""kind: classify: the same classes for every record, each worded by a choice.

`labels` are the values of `gold` in the file, in the order of `choices`.
"""

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Asked

__all__ = ["ask"]


def ask(record: Fields) -> Asked:
    """Return the prompt, the wordings of the classes and the index of the correct one.

    Raises `UserError` unless there is one label for each choice.
    """
    choices, labels = record.choices(), record.task.labels
    if len(labels) != len(choices):
        raise record.unfit("labels", f"there must be one for each of {len(choices)} choices")
    return Asked(
        prompt=record.prompt(),
        separator=record.task.separator,
        choices=choices,
        gold=record.label(),
        neutral_prompt=record.neutral_prompt(),
    )

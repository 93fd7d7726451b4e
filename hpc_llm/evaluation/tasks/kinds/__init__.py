"""Kinds of tasks, one file each: from a record to a question with choices.

`kinds/NAME.py`, also of a plug-in folder, defines `ask(record) -> Asked`, where `record` evaluates
the templates and expressions of the task. No other code refers to a kind by name. No torch here.
"""

import sys
from collections.abc import Callable

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Asked
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice

__all__ = ["kind_code", "kind_names", "load_kind"]


def kind_names() -> list[str]:
    """Return the names of all kinds, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def load_kind(name: str) -> Callable[[Fields], Asked]:
    """Return the function of the kind `name`. Raises `UserError` for an unknown one."""
    function: Callable[[Fields], Asked] = load_choice(sys.modules[__name__], name, "ask").ask
    return function


def kind_code(name: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in kind in fingerprints; {} for an own one."""
    return choice_code(sys.modules[__name__], name)

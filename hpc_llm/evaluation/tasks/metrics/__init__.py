"""Metrics of tasks, one file each: from the scores of a question to a value in [0, 1].

`metrics/NAME.py`, also of a plug-in folder, defines `outcome(scored) -> Outcome`. Results are means
over questions. No other code refers to a metric by name. No torch here.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.evaluation.tasks.questions import Outcome, Scored
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice

__all__ = ["load_metric", "metric_code", "metric_names"]


def metric_names() -> list[str]:
    """Return the names of all metrics, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def load_metric(name: str) -> Callable[[Scored], Outcome]:
    """Return the function of the metric `name`. Raises `UserError` for an unknown one.

    Called, it raises `UserError` about `metric` if the code of a plug-in fails.
    """
    function = load_choice(sys.modules[__name__], name, "outcome").outcome
    return partial(_checked, name, function)


def _checked(name: str, function: Callable[[Scored], Any], scored: Scored) -> Outcome:
    try:
        found = function(scored)
        if not isinstance(found, Outcome) or not 0 <= found.value <= 1:
            raise TypeError(f"it returned {found!r}, not an Outcome with a value from 0 to 1")
    except UserError:
        raise
    except Exception as error:
        rule = f"{type(error).__name__}: {error}"
        raise UserError("metric", name, " ".join(rule.split()), "correct its file") from error
    return found


def metric_code(name: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in metric in fingerprints; {} for an own one."""
    return choice_code(sys.modules[__name__], name)

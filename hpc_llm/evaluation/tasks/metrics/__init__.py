"""Metrics of tasks, one file each: from the scores of a question to a value in [0, 1].

`metrics/NAME.py`, also of a plug-in folder, defines `outcome(scored) -> Outcome`. Results are means
over questions, unless it also defines a `TOTAL` (`hpc_llm.evaluation.tasks.totals`). No other code
refers to a metric by name. No torch here.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.evaluation.tasks.questions import Outcome, Scored
from hpc_llm.evaluation.tasks.totals import MEAN, Total
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice

__all__ = ["load_metric", "load_total", "metric_code", "metric_names"]


def metric_names() -> list[str]:
    """Return the names of all metrics, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def load_metric(name: str) -> Callable[[Scored], Outcome]:
    """Return the function of the metric `name`. Raises `UserError` for an unknown one.

    Called, it raises `UserError` about `metric` if the code of a plug-in fails.
    """
    function = load_choice(sys.modules[__name__], name, "outcome").outcome
    return partial(_checked, name, function)


def load_total(name: str) -> Total:
    """Return how the metric `name` combines outcomes. Raises `UserError` for an unknown one."""
    found = getattr(load_choice(sys.modules[__name__], name, "outcome"), "TOTAL", MEAN)
    if not isinstance(found, Total):
        raise UserError("metric", name, f"its TOTAL is {found!r}, no Total", "correct its file")
    return found


def _checked(name: str, function: Callable[[Scored], Any], scored: Scored) -> Outcome:
    try:
        found = function(scored)
        if not isinstance(found, Outcome):
            raise TypeError(f"it returned {found!r}, not an Outcome")
        if not found.parts and not 0 <= found.value <= 1:
            raise ValueError(f"its value {found.value} is not from 0 to 1")
    except UserError:
        raise
    except Exception as error:
        rule = f"{type(error).__name__}: {error}"
        raise UserError("metric", name, " ".join(rule.split()), "correct its file") from error
    return found


def metric_code(name: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in metric in fingerprints; {} for an own one."""
    return choice_code(sys.modules[__name__], name)

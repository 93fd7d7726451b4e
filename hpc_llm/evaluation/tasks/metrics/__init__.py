"""Metrics of tasks, one file each: from the scores of a question to a value in [0, 1].

`metrics/NAME.py`, also of a plug-in folder, defines `outcome(scored) -> Outcome`. Results are means
over questions. No other code refers to a metric by name. No torch here.
"""

import sys
from collections.abc import Callable

from hpc_llm.evaluation.tasks.questions import Outcome, Scored
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice

__all__ = ["load_metric", "metric_code", "metric_names"]


def metric_names() -> list[str]:
    """Return the names of all metrics, including those of plug-in folders."""
    return choice_names(sys.modules[__name__])


def load_metric(name: str) -> Callable[[Scored], Outcome]:
    """Return the function of the metric `name`. Raises `UserError` for an unknown one."""
    module = load_choice(sys.modules[__name__], name, "outcome")
    function: Callable[[Scored], Outcome] = module.outcome
    return function


def metric_code(name: str) -> dict[str, str]:
    """Return what stands for the code of a plug-in metric in fingerprints; {} for an own one."""
    return choice_code(sys.modules[__name__], name)

"""Compares a plan with the budget: the share of each limit it takes, and what the limit buys.

Stages are paid for in order, as in a run. What is left after the last stage buys more of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.planning.rows import PlanRow
from hpc_llm.settings import RunConfig

__all__ = ["Bought", "BudgetLine", "plan_budget"]

LIMITS = {"money": "money", "gpu_hours": "device_hours", "pf_days": "pf_days"}


@dataclass(frozen=True, kw_only=True)
class Bought:
    """A limit at one point of the interval."""

    share: float | None
    """Cost of the plan relative to the limit; None: unknown."""
    tokens: int | None
    """Tokens of all stages together that the limit buys."""
    stage: str | None
    """The stage in which the limit is reached; None: it is not reached."""
    step: int | None
    """The step of that stage at which it is reached."""


@dataclass(frozen=True, kw_only=True)
class BudgetLine:
    """One limit of the budget."""

    key: str
    """money | gpu_hours | pf_days."""
    limit: float
    """Value of the limit."""
    unit: str
    """Currency, GPU-hours or PF-days."""
    low: Bought
    """At the lowest cost."""
    mid: Bought
    """At the mean cost."""
    high: Bought
    """At the highest cost."""


UNKNOWN = Bought(share=None, tokens=None, stage=None, step=None)


def plan_budget(cfg: RunConfig, rows: Sequence[PlanRow]) -> list[BudgetLine]:
    """Return a line for each limit that is set."""
    units = {"money": cfg.hardware.currency, "gpu_hours": "GPU-hours", "pf_days": "PF-days"}
    lines = []
    for key, unit in units.items():
        limit = getattr(cfg.budget, key)
        if limit is None:
            continue
        points = {}
        for end in ("low", "mid", "high"):
            costs = _costs(cfg, rows, key, end)
            points[end] = UNKNOWN if costs is None else _bought(cfg, rows, costs, limit)
        lines.append(BudgetLine(key=key, limit=limit, unit=unit, **points))
    return lines


def _costs(cfg: RunConfig, rows: Sequence[PlanRow], key: str, end: str) -> list[float] | None:
    """Return the cost of each stage in the unit of a limit; None: unknown, or no stages."""
    if key == "gpu_hours" and cfg.hardware.kind != "gpu":
        return None
    sources = [row if key == "pf_days" else getattr(row.projection, end) for row in rows]
    costs = [getattr(source, LIMITS[key]) for source in sources]
    return costs if costs and None not in costs else None


def _bought(
    cfg: RunConfig, rows: Sequence[PlanRow], costs: Sequence[float], limit: float
) -> Bought:
    left, tokens, share = limit, 0, sum(costs) / limit
    for row, cost in zip(rows, costs, strict=True):
        if cost > left:
            part = int(row.tokens * left / cost)
            step = part // cfg.for_stage(row.stage).train.batch_tokens
            return Bought(share=share, tokens=tokens + part, stage=row.stage, step=step)
        left, tokens = left - cost, tokens + row.tokens
    more = int(rows[-1].tokens * left / costs[-1])
    return Bought(share=share, tokens=tokens + more, stage=None, step=None)

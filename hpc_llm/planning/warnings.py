"""Problems and warnings of a plan, printed before its numbers."""

from collections.abc import Sequence

from hpc_llm.accounting.columns import figure
from hpc_llm.methods import trains
from hpc_llm.planning.budget import BudgetLine
from hpc_llm.planning.fitting import node_counts
from hpc_llm.planning.rows import PlanRow, sum_rows
from hpc_llm.settings import RunConfig, StageSettings
from hpc_llm.settings.launch import walltime_minutes

__all__ = ["plan_problems", "plan_warnings"]

GIB = 2**30


def plan_problems(
    asked: RunConfig, cfg: RunConfig, rows: Sequence[PlanRow], longest: int | None
) -> list[str]:
    """Return known reasons why training would fail, one sentence each.

    `cfg` is `asked` as adjusted to the model and the budget; `longest` is the context length of the
    model (None: any).
    """
    return [*_rows(cfg), *_length(asked, cfg, longest), *_memory(cfg, rows), *_uncounted(cfg)]


def _rows(cfg: RunConfig) -> list[str]:
    """Batches that cannot be split evenly; stages with equal batches are named once."""
    views = {"train": cfg} | {f"stages.{name}": cfg.for_stage(name) for name in cfg.stages}
    found: dict[tuple[int, int], str] = {}
    for key, view in views.items():
        train = view.train
        problem = _uneven(view, key)
        if problem and (train.batch_tokens, train.sequence_length) not in found:
            found[train.batch_tokens, train.sequence_length] = problem
    return list(found.values())


def _uneven(cfg: RunConfig, key: str) -> str | None:
    train, ranks = cfg.train, cfg.planned_ranks // cfg.parallel.ranks
    rows = train.batch_tokens // train.sequence_length
    if rows % ranks == 0:
        return None
    fix = f"use {key}.batch_tokens=(a multiple of {ranks * train.sequence_length})"
    if cfg.hardware.kind == "gpu":
        fewer = [nodes for nodes in node_counts(cfg, least=1) if nodes < cfg.cluster.nodes]
        fix += f" or cluster.nodes={fewer[-1]}" if fewer else ""
    return (
        f"{key}.batch_tokens={train.batch_tokens}: its {rows} sequences cannot be split over "
        f"{ranks} ranks; {fix}"
    )


def _length(asked: RunConfig, cfg: RunConfig, longest: int | None) -> list[str]:
    """Sequences above the context length of the model."""
    found = [
        f"stages.{name}.sequence_length={stage.sequence_length}: the context length of the model "
        f"is {longest}; use that or less"
        for name, stage in cfg.stages.items()
        if longest is not None and (stage.sequence_length or 0) > longest
    ]
    train = cfg.train
    if train.sequence_length == asked.train.sequence_length:
        return found
    fix = f"train.sequence_length={train.sequence_length}"
    if train.batch_tokens != asked.train.batch_tokens:
        fix += f" train.batch_tokens={train.batch_tokens}"
    return [
        f"train.sequence_length={asked.train.sequence_length}: the context length of the model is "
        f"{train.sequence_length}, which is planned; use {fix}",
        *found,
    ]


def _memory(cfg: RunConfig, rows: Sequence[PlanRow]) -> list[str]:
    return [
        f"{row.stage} does not fit: it needs {figure(row.memory.total / GIB)} of "
        f"{figure(cfg.hardware.memory_gib)} GiB of a device"
        for row in rows
        if row.memory is not None and row.fits is False and not row.tight
    ]


def _uncounted(cfg: RunConfig) -> list[str]:
    """Limits of the budget that training rejects, because it cannot measure them."""
    budget, hardware, found = cfg.budget, cfg.hardware, []
    if budget.money is not None and hardware.price_low is None:
        found.append(
            f"budget.money={budget.money:g}: {hardware.name} has no price; set "
            "hardware.price_low and hardware.price_high"
        )
    if budget.gpu_hours is not None and hardware.kind != "gpu":
        found.append(f"budget.gpu_hours={budget.gpu_hours:g}: {hardware.name} is not a GPU")
    return found


def plan_warnings(
    cfg: RunConfig, rows: Sequence[PlanRow], budget: Sequence[BudgetLine]
) -> list[str]:
    """Return possible problems, one sentence each."""
    found = [
        f"{row.stage} is tight: it needs {figure(row.memory.total / GIB)} of "
        f"{figure(cfg.hardware.memory_gib)} GiB of a device, fragmentation not counted"
        for row in rows
        if row.memory is not None and row.tight
    ]
    if cfg.train.recompute == "full" and any(_head_alone(stage) for stage in cfg.stages.values()):
        found.append("train.recompute=full makes training the head alone cost almost 3 times more")
    cluster = cfg.cluster
    if cfg.zero.stage == 3 and cluster.nodes > 1 and cluster.link_gb_per_second is None:
        found.append(
            "zero.stage=3 sends all weights between nodes over a network of unknown bandwidth, "
            "which is not included in the costs; set cluster.link_gb_per_second"
        )
    if cfg.zero.node_partition and cluster.nodes == 1:
        found.append(
            "zero.node_partition=true keeps a second copy of the weights, which saves nothing on "
            "one node; remove it"
        )
    return [*found, *_over_budget(budget), *_time_limit(cfg, rows)]


def _head_alone(stage: StageSettings) -> bool:
    what = trains(stage)
    return what.head and not (what.embedding or what.body or what.adapter)


def _over_budget(budget: Sequence[BudgetLine]) -> list[str]:
    return [
        f"budget.{line.key}={line.limit:g} is less than the plan takes"
        + ("" if line.mid.stage else " (high)")
        for line in budget
        if line.high.stage
    ]


def _time_limit(cfg: RunConfig, rows: Sequence[PlanRow]) -> list[str]:
    """Warn where the run may exceed the time limit of all starts of its job together."""
    launch, total = cfg.launch, sum_rows(rows).projection
    minutes = None if launch.time is None else walltime_minutes(launch.time)
    if minutes is None or total.high.hours is None or total.mid.hours is None:
        return []
    allowed = minutes / 60 * (launch.max_requeues + 1)
    if total.high.hours <= allowed:
        return []
    return [
        f"launch.time={launch.time} and launch.max_requeues={launch.max_requeues} allow "
        f"{figure(allowed)} hours; training takes {figure(total.mid.hours)} (mid) to "
        f"{figure(total.high.hours)} (high)"
    ]

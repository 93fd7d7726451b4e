"""What must be known of a plan before its figures: what cannot run, and what may go wrong."""

from collections.abc import Sequence

from hpc_llm.accounting.columns import figure
from hpc_llm.methods import trains
from hpc_llm.planning.budget import BudgetLine
from hpc_llm.planning.fitting import node_counts
from hpc_llm.planning.rows import PlanRow, sum_rows
from hpc_llm.planning.work import planned_ranks
from hpc_llm.settings import RunConfig, StageSettings
from hpc_llm.settings.launch import walltime_minutes

__all__ = ["plan_problems", "plan_warnings"]

GIB = 2**30


def plan_problems(
    asked: RunConfig, cfg: RunConfig, rows: Sequence[PlanRow], longest: int | None
) -> list[str]:
    """Return why training would refuse or fail, one sentence each; [] if nothing is known.

    `cfg` is what `asked` becomes for this model and budget; `longest` is the longest sequence that
    the model takes (None: any).
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
    train, ranks = cfg.train, planned_ranks(cfg)
    rows = train.batch_tokens // train.sequence_length
    if rows % ranks == 0:
        return None
    cure = f"give {key}.batch_tokens=(a multiple of {ranks * train.sequence_length})"
    if cfg.hardware.kind == "gpu":
        fewer = [nodes for nodes in node_counts(cfg, least=1) if nodes < cfg.cluster.nodes]
        cure += f" or cluster.nodes={fewer[-1]}" if fewer else ""
    return (
        f"{key}.batch_tokens={train.batch_tokens}: its {rows} rows cannot be divided among {ranks} "
        f"ranks; {cure}"
    )


def _length(asked: RunConfig, cfg: RunConfig, longest: int | None) -> list[str]:
    """Sequences that are longer than what the model takes."""
    found = [
        f"stages.{name}.sequence_length={stage.sequence_length}: the model takes no longer rows "
        f"than {longest}"
        for name, stage in cfg.stages.items()
        if longest is not None and (stage.sequence_length or 0) > longest
    ]
    train = cfg.train
    if train.sequence_length == asked.train.sequence_length:
        return found
    cure = f"train.sequence_length={train.sequence_length}"
    if train.batch_tokens != asked.train.batch_tokens:
        cure += f" train.batch_tokens={train.batch_tokens}"
    return [
        f"train.sequence_length={asked.train.sequence_length}: the model takes no longer rows than "
        f"{train.sequence_length}, which are planned; give {cure}",
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
    """Limits of the budget that training refuses, as it could not count them."""
    budget, hardware, found = cfg.budget, cfg.hardware, []
    if budget.money is not None and hardware.price_low is None:
        found.append(
            f"budget.money={budget.money:g}: {hardware.name} has no price; give "
            "hardware.price_low and hardware.price_high"
        )
    if budget.gpu_hours is not None and hardware.kind != "gpu":
        found.append(f"budget.gpu_hours={budget.gpu_hours:g}: {hardware.name} is no GPU")
    return found


def plan_warnings(
    cfg: RunConfig, rows: Sequence[PlanRow], budget: Sequence[BudgetLine]
) -> list[str]:
    """Return what may go wrong, one sentence each."""
    found = [
        f"{row.stage} is tight: it needs {figure(row.memory.total / GIB)} of "
        f"{figure(cfg.hardware.memory_gib)} GiB of a device, fragmentation not counted"
        for row in rows
        if row.memory is not None and row.tight
    ]
    if cfg.train.recompute and any(_head_alone(stage) for stage in cfg.stages.values()):
        found.append("train.recompute=true makes training of the head alone almost 3 times dearer")
    cluster = cfg.cluster
    if cfg.zero.stage == 3 and cluster.nodes > 1 and cluster.link_gb_per_second is None:
        found.append(
            "zero.stage=3 sends all weights between nodes, and their network is not known: it is "
            "in no figure before cluster.link_gb_per_second is given"
        )
    return [*found, *_over_budget(budget), *_time_limit(cfg, rows)]


def _head_alone(stage: StageSettings) -> bool:
    what = trains(stage)
    return what.head and not (what.embedding or what.body or what.adapter)


def _over_budget(budget: Sequence[BudgetLine]) -> list[str]:
    return [
        f"budget.{line.key}={line.limit:g} is less than the plan takes"
        + ("" if line.mid.stage else ", if it comes dear")
        for line in budget
        if line.high.stage
    ]


def _time_limit(cfg: RunConfig, rows: Sequence[PlanRow]) -> list[str]:
    """The time limit of all starts of a job together, where the run may take longer."""
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

"""Rows of a plan: one per training stage, and their sum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.memory import MemoryPlan, fits, tight
from hpc_llm.accounting.method import Method
from hpc_llm.accounting.projection import (
    Estimate,
    Projection,
    computing_hours,
    hidden_hours,
    sum_known,
)
from hpc_llm.accounting.traffic import NodeTraffic
from hpc_llm.methods import ALL_LAYERS
from hpc_llm.planning.work import (
    Work,
    overlaps,
    run_machine,
    run_memory,
    run_method,
    run_projection,
    run_traffic,
)
from hpc_llm.settings import RunConfig

__all__ = ["PlanRow", "plan_row", "sum_rows"]


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """Costs of one stage, or of all."""

    stage: str
    """Name of the stage, or `sum`."""
    method: str
    """Label of the training method; empty in the sum."""
    trainable: int | None
    """Trainable parameters; None in the sum."""
    parameters: int | None
    """Parameters of the model in this stage; None in the sum."""
    tokens: int
    """Training tokens."""
    flops_per_token: float | None
    """Exact and causal, without recomputation."""
    share_of_full: float | None
    """`flops_per_token` relative to full training."""
    flops: int
    """Exact and causal, of the whole stage."""
    pf_days: float
    """The same in PF-days."""
    flops_6n: int
    """6 N D, which ignores the method."""
    projection: Projection
    """Time, money and energy of the hardware FLOPs."""
    memory: MemoryPlan | None
    """Peak of one device; None in the sum."""
    fits: bool | None
    """Whether the peak fits with a margin for fragmentation; None: unknown."""
    tight: bool | None
    """Whether the peak fits without that margin only; None: unknown."""
    network_hours: float | None
    """Time of the network between nodes without overlap; None: unknown."""
    network_share: float | None
    """The same relative to the compute time, at `mid`."""
    exposed_share: float | None
    """The part of it that compute does not hide, relative to the compute time, at `mid`."""
    traffic: NodeTraffic | None
    """Bytes that a node sends in an optimizer step; None in the sum."""


def _label(arch: Architecture | None, method: Method) -> str:
    """Label the method; "all" linear layers of a mixture of experts are those of its attention."""
    if (
        arch is not None
        and method.adapter
        and arch.num_experts
        and method.adapter.targets == ALL_LAYERS
    ):
        return method.label.replace(" all", " attention", 1)
    return method.label


def _network(cfg: RunConfig, projection: Projection) -> tuple[float | None, float | None]:
    """Return network time relative to compute time at `mid`, and the part that is not hidden."""
    hours = computing_hours(projection.flops, run_machine(cfg), projection.mid.utilisation)
    sent = projection.network_hours
    if sent is None or hours is None:
        return None, None
    hidden = hidden_hours(hours, sent, end="mid", overlap=overlaps(cfg))
    return sent / hours, (sent - hidden) / hours


def plan_row(cfg: RunConfig, work: Work) -> PlanRow:
    """Return the costs of one stage."""
    length = cfg.for_stage(work.stage).train.sequence_length
    method = run_method(cfg, work)
    projection = run_projection(cfg, work)
    per_token = work.flops_per_token(length)
    flops = math.ceil(per_token * work.tokens)
    count = work.parameters
    needed = run_memory(cfg, work) if cfg.hardware.kind == "gpu" else None
    network, exposed = _network(cfg, projection)
    return PlanRow(
        stage=work.stage,
        method=_label(work.arch, method),
        trainable=work.trainable,
        parameters=count.total,
        tokens=work.tokens,
        flops_per_token=per_token,
        share_of_full=work.share_of_full(length),
        flops=flops,
        pf_days=pf_days(flops),
        flops_6n=6 * count.active * work.tokens,
        projection=projection,
        memory=needed,
        fits=None if needed is None else fits(needed, cfg.hardware),
        tight=None if needed is None else tight(needed, cfg.hardware),
        network_hours=projection.network_hours,
        network_share=network,
        exposed_share=exposed,
        traffic=run_traffic(cfg, work),
    )


def _sum_estimates(estimates: Sequence[Estimate]) -> Estimate:
    names = [f.name for f in fields(Estimate) if f.name != "utilisation"]
    sums = {name: sum_known([getattr(estimate, name) for estimate in estimates]) for name in names}
    return Estimate(utilisation=estimates[0].utilisation if estimates else None, **sums)


def sum_rows(rows: Sequence[PlanRow]) -> PlanRow:
    """Add up the stages; a number that one of them lacks is None."""
    projections = [row.projection for row in rows]
    network = sum_known([row.network_hours for row in rows])
    return PlanRow(
        stage="sum",
        method="",
        trainable=None,
        parameters=None,
        tokens=sum(row.tokens for row in rows),
        flops_per_token=None,
        share_of_full=None,
        flops=sum(row.flops for row in rows),
        pf_days=sum(row.pf_days for row in rows),
        flops_6n=sum(row.flops_6n for row in rows),
        projection=Projection(
            flops=sum(p.flops for p in projections),
            network_hours=network,
            low=_sum_estimates([p.low for p in projections]),
            mid=_sum_estimates([p.mid for p in projections]),
            high=_sum_estimates([p.high for p in projections]),
        ),
        memory=None,
        fits=None,
        tight=None,
        network_hours=network,
        network_share=None,
        exposed_share=None,
        traffic=None,
    )

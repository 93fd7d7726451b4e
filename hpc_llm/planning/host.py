"""Host memory of a node in the parts of a recipe, beside what the node has."""

from collections.abc import Sequence
from dataclasses import replace

from hpc_llm.accounting.columns import figure
from hpc_llm.accounting.host_memory import HostMemory, HostSetup, host_memory
from hpc_llm.accounting.memory import BYTES
from hpc_llm.accounting.method import trainable_parameters
from hpc_llm.planning.work import Work, run_method
from hpc_llm.settings import RunConfig

__all__ = ["host_line", "host_warnings", "plan_host"]

GIB = 2**30
NAMES = {
    "transplant": "transplant",
    "start": "start of training",
    "checkpoints": "checkpoints",
    "offloaded": "offloaded states",
    "end": "end of training",
    "merge": "merge",
}
CURES = {
    "start": "use zero=stage3",
    "checkpoints": "use checkpoint.layout=sharded",
    "offloaded": "use more nodes",
}


def plan_host(cfg: RunConfig, works: Sequence[Work], old_vocabulary: int) -> HostMemory | None:
    """Return the host memory of the node that needs most; None: the model's sizes are not known."""
    plans = []
    for work in works:
        if work.arch is None:
            return None
        own = cfg.for_stage(work.stage)
        trained = trainable_parameters(work.arch, run_method(own, work))
        plans.append(host_memory(work.arch, old_vocabulary, trained, _setup(own, trained)))
    if not plans:
        return None
    parts = {name: max(getattr(plan, name) for plan in plans) for name in NAMES}
    return replace(plans[0], **parts)


def _setup(cfg: RunConfig, trained: int) -> HostSetup:
    stage = cfg.zero.stage
    layout = cfg.checkpoint.layout_for(trained, stage, cfg.parallel.tensor)
    return HostSetup(
        width=BYTES[cfg.train.precision],
        nodes=cfg.cluster.nodes,
        ranks_per_node=max(1, cfg.planned_ranks // cfg.cluster.nodes),
        zero_stage=stage,
        sharded=layout == "sharded",
        offload_optimizer=cfg.zero.offload_optimizer,
        offload_parameters=cfg.zero.offload_parameters,
    )


def host_line(plan: HostMemory | None, memory_gib: float | None) -> list[str]:
    """Return a line with the memory of each part."""
    if plan is None:
        return []
    parts = (f"{NAMES[name]} {figure(value / GIB)}" for name, value in plan.parts.items())
    limit = "" if memory_gib is None else f"; a node has {figure(memory_gib)}"
    return [f"GiB of a node's host memory: {', '.join(parts)}{limit}"]


def host_warnings(plan: HostMemory | None, memory_gib: float | None) -> list[str]:
    """Return a warning for each part that needs more than a node has."""
    if plan is None or memory_gib is None:
        return []
    return [
        f"{NAMES[name]} needs {figure(value / GIB)} of {figure(memory_gib)} GiB of a node's host "
        f"memory; {CURES.get(name, 'use nodes with more memory')}"
        for name, value in plan.parts.items()
        if value > memory_gib * GIB
    ]

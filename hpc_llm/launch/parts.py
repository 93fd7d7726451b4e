"""Split the recipe into jobs: stages that need different nodes run in separate jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpc_llm.launch.options import sbatch_options
from hpc_llm.pipeline.table import outline
from hpc_llm.planning.evaluation import part_place
from hpc_llm.settings import RunConfig
from hpc_llm.settings.launch import PLACES

__all__ = ["Part", "divide"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One job of the chain."""

    name: str
    """train, or corpus+tokenizer if both are in one job."""
    stages: tuple[str, ...]
    """Its stages, in order."""
    options: Mapping[str, Any]
    """sbatch options by their long names."""
    whole: bool = False
    """Whether it has all unfinished stages of its verb."""
    all_nodes: bool
    """Whether it runs on the nodes of training."""


def divide(cfg: RunConfig, stages: Sequence[str], *, whole: bool = True) -> list[Part]:
    """Return the jobs that run `stages` (names in recipe order), each after the one before.

    Models between training stages are evaluated at the end, so that all nodes do not wait for few
    batches. Consecutive parts with equal options share a job; `launch.chain=false` puts everything
    in one job, on the nodes of training. `whole`: `stages` are all unfinished stages of the verb.
    """
    if not cfg.launch.chain:
        options = sbatch_options(cfg)
        return [
            Part(name="all", stages=tuple(stages), options=options, whole=whole, all_nodes=True)
        ]
    parts: list[Part] = []
    part_of = {entry.name: entry.row.part for entry in outline(cfg)}
    for name in PLACES:
        own = tuple(stage for stage in stages if part_of[stage] == name)
        if not own:
            continue
        wide = part_place(cfg, name) == "all"
        part = Part(name=name, stages=own, options=sbatch_options(cfg, name), all_nodes=wide)
        if parts and parts[-1].options == part.options:
            part = _joined(parts.pop(), part)
        parts.append(part)
    return [replace(part, whole=whole and len(parts) == 1) for part in parts]


def _joined(one: Part, other: Part) -> Part:
    return replace(
        one,
        name=f"{one.name}+{other.name}",
        stages=one.stages + other.stages,
        all_nodes=one.all_nodes or other.all_nodes,
    )

"""Rerun one step from the nearest checkpoint before it, without side effects.

A step depends only on the weights before it, its batch and its seed. On the same machine and number
of ranks the rerun is bit-identical; elsewhere it matches to rounding.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hpc_llm.settings import GuardSettings
from hpc_llm.training.checkpoints.resume import load_latest
from hpc_llm.training.engine import start_engine
from hpc_llm.training.forensics import StepRecord
from hpc_llm.training.loop import Loop
from hpc_llm.training.progress import Progress
from hpc_llm.training.spec import Hooks, StageSpec

__all__ = ["rerun_step"]

NEVER = 1e12  # minutes


def _without_stop(guards: GuardSettings) -> GuardSettings:
    """Return guards with every `stop` replaced by `skip`, so a step that ended the stage runs."""
    kinds = ("not_finite", "spike", "zero_gradient")
    stopped: dict[str, Any] = {k: "skip" for k in kinds if getattr(guards, k) == "stop"}
    return replace(guards, most_skips=10**9, **stopped)


def rerun_step(
    spec: StageSpec, step: int, step_flops: Callable[[int, int], int]
) -> tuple[StepRecord, int]:
    """Return the record of `step` (1-based) and the step it started from.

    Collective. Without an earlier checkpoint the stage starts from its first step. `step_flops` is
    the loop's hook: the learning rate may depend on it.
    """
    snapshot = load_latest(spec, last=step - 1, tidying=False)
    quiet = replace(
        spec,
        checkpoint=replace(spec.checkpoint, minutes=NEVER),
        guards=_without_stop(spec.guards),
        branch_steps=(),
    )
    seen: list[StepRecord] = []
    hooks = Hooks(
        log=lambda progress, metrics, records: seen.extend(records),
        resumed=lambda progress: None,
        step_flops=step_flops,
        stop_reason=lambda: None,
    )
    engine = start_engine(quiet.trainable, quiet, snapshot)
    loop = Loop(quiet, hooks, engine, snapshot.progress if snapshot else Progress())
    began = loop.progress.step
    record = None
    while record is None or record.step < step:
        loop.step()
        record = loop.last
    return record, began

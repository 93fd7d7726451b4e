"""One step repeated: from the nearest checkpoint before it, without a trace.

What a step computes depends on the weights before it, its batch and its seed alone, so on the same
machine and number of ranks the repeated step gives the same bits; elsewhere it agrees to rounding.
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
    """Return guards that let a step which ended the stage be looked at; the others are the same."""
    kinds = ("not_finite", "spike", "zero_gradient")
    stopped: dict[str, Any] = {k: "skip" for k in kinds if getattr(guards, k) == "stop"}
    return replace(guards, most_skips=10**9, **stopped)


def rerun_step(
    spec: StageSpec, step: int, step_flops: Callable[[int, int], int]
) -> tuple[StepRecord, int]:
    """Return the record of `step` (counted from 1) and the step it began after.

    Collective. Without a checkpoint before it the stage starts from its first step. `step_flops` is
    that of the loop's hooks: the learning rate may depend on it.
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

"""Source text measured during a stage: how much the model forgets, and when to stop for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hpc_llm.training.progress import Progress

__all__ = ["Meter", "Metering"]


@dataclass(frozen=True, kw_only=True)
class Meter:
    """What is measured, and the limit."""

    steps: int
    """Steps between two measurements."""
    base: float
    """Bits per byte of the base model on the same documents, with its own tokenizer."""
    stop_above: float | None
    """Largest accepted increase, in bits per byte."""
    measure: Callable[[torch.nn.Module], float]
    """From the model in training to its bits per byte (collective)."""


class Metering:
    """The meter of a running stage."""

    def __init__(
        self,
        meter: Meter | None,
        model: torch.nn.Module,
        report: Callable[[Progress, dict[str, float]], None],
    ) -> None:
        """`report` is called with the totals so far and the measures; None: no meter."""
        self.meter, self.model, self.report = meter, model, report
        self.reason: str | None = None
        """Why the stage has to end now."""

    def due(self, done: Progress) -> bool:
        """Whether the model after the steps `done` is measured."""
        return self.meter is not None and done.step > 0 and done.step % self.meter.steps == 0

    def look(self, done: Progress, *, again: bool = False) -> None:
        """Measure and report (collective); `again`: it is reported already."""
        meter = self.meter
        assert meter is not None
        bits = meter.measure(self.model)
        change = bits - meter.base
        if not again:
            self.report(done, {"bpb/source": bits, "forgetting/delta_bpb": change})
        if meter.stop_above is not None and change > meter.stop_above:
            self.reason = (
                f"ended at step {done.step}: source text is {change:.3f} bits per byte worse than "
                f"in the base model (evaluation.meter.stop_above={meter.stop_above:g})"
            )

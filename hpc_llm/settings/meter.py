"""Settings of the meter: source text measured during training (`evaluation.meter`)."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import count, positive
from hpc_llm.settings.corpus import CorpusSettings
from hpc_llm.settings.parallel import ParallelSettings

__all__ = ["MeterSettings", "check_meter"]


@dataclass(kw_only=True)
class MeterSettings:
    """How forgetting is followed during each training stage."""

    steps: int | None = count(10**9, default=None)
    """Measure after so many steps, again and again; null: never."""
    documents: int = count(10**6, default=20)
    """Tune documents of the source text that are measured."""
    stop_above: float | None = positive(100, default=None)
    """End the stage when source text is so many bits per byte worse than in the base model; null:
    only measure."""


def check_meter(
    settings: MeterSettings, corpus: CorpusSettings, parallel: ParallelSettings
) -> None:
    """Raise `UserError` for a meter of a run without source text, or with parallel models."""
    if settings.steps is None:
        if settings.stop_above is not None:
            rule = "nothing is measured without evaluation.meter.steps"
            raise UserError("evaluation.meter.stop_above", settings.stop_above, rule, "set it: 50")
        return
    if not corpus.texts_in("source"):
        rule = "there is no source text that could be forgotten"
        raise UserError("evaluation.meter.steps", settings.steps, rule, "set corpus.source")
    ways = {"sequence": parallel.sequence, "tensor": parallel.tensor}
    for name, ranks in ways.items():
        if ranks > 1:
            rule = f"needs a whole sequence and model on a rank; parallel.{name}={ranks}"
            fix = f"use parallel.{name}=1, or remove it"
            raise UserError("evaluation.meter.steps", settings.steps, rule, fix)

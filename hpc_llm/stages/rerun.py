"""`hpc-llm train rerun.step=N`: rerun a step of a stage and compare it with its record."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import read_jsonl
from hpc_llm.stages.train import starting_point
from hpc_llm.stages.training import build_spec
from hpc_llm.surgery.loading import load_tokenizer
from hpc_llm.training.forensics import StepRecord
from hpc_llm.training.rerun import rerun_step
from hpc_llm.training.spec import StageSpec

__all__ = ["recorded_step", "rerun"]

ROUNDING = 1e-4  # relative tolerance of the loss on another machine or number of ranks


def rerun(context: Context) -> tuple[str, bool]:
    """Rerun the step of `cfg.rerun`; return the comparison as text, and whether it matches
    (collective)."""
    cfg = context.cfg
    stage, step = cfg.rerun.stage or cfg.adaptation[-1], cfg.rerun.step
    if stage not in cfg.adaptation:
        known = ", ".join(cfg.adaptation)
        raise UserError("rerun.stage", stage, "not in the recipe", f"choose one of {known}")
    assert step is not None
    before = recorded_step(context.folder.events, stage, step)
    model, text = starting_point(context, stage)
    spec, flops = build_spec(context, stage, model, text, context.stage_folder(f"train/{stage}"))
    again, began = rerun_step(spec, step, flops.model)
    lines = [f"{stage}: step {step} rerun from step {began}"]
    compared, matches = _compare(before, again)
    lines += compared
    if cfg.rerun.show:
        lines += _documents(context, spec, again.batch)
    return "\n".join(lines) + "\n", matches


def recorded_step(events: Path, stage: str, step: int) -> StepRecord:
    """Return the newest record of a step in `events.jsonl`; `UserError` if there is none."""
    found = None
    for line in read_jsonl(events):
        if line.get("event") == "train" and line.get("stage") == stage:
            for record in line.get("steps", []):
                found = StepRecord(*record) if record[0] == step else found
    if found is None:
        raise UserError("rerun.step", step, f"{events} has no record of this step of {stage}")
    return found


def _compare(before: StepRecord, again: StepRecord) -> tuple[list[str], bool]:
    same_batch = before.chain == again.chain
    same = repr(again.loss) == repr(before.loss)  # NaN equals NaN here
    difference = 0.0 if same else abs(again.loss - before.loss) / max(abs(before.loss), 1e-12)
    lines = [
        f"batch {before.batch}: {'identical' if same_batch else 'DIFFERENT'} "
        f"(chain {before.chain}, rerun {again.chain})",
        f"loss {before.loss!r}, rerun {again.loss!r}: {_verdict(difference)}",
    ]
    if before.gradient_norm is not None and again.gradient_norm is not None:
        norms = before.gradient_norm, again.gradient_norm
        gap = abs(norms[1] - norms[0]) / max(abs(norms[0]), 1e-12)
        lines.append(f"gradient norm {norms[0]!r}, rerun {norms[1]!r}: {_verdict(gap)}")
    if before.applied != again.applied:
        lines.append(f"update applied: {before.applied}, rerun {again.applied}")
    return lines, same_batch and not difference > ROUNDING and before.applied == again.applied


def _verdict(difference: float) -> str:
    if difference == 0:
        return "bit-identical"
    return f"relative difference {difference:.1e}" + (
        ", MORE THAN ROUNDING" * (difference > ROUNDING)
    )


def _documents(context: Context, spec: StageSpec, batch: int) -> Iterator[str]:
    """Yield the decoded texts of a batch, of all ranks."""
    tokenizer: Any = load_tokenizer(context.stage_folder("tokenizer"), context.cfg.model)
    for share in range(spec.plan.data_parallel):
        for part in spec.plan.indices(batch, share):
            for pieces in spec.reader.read(part).pieces:
                for tokens in pieces:
                    yield f"--- {len(tokens)} tokens: {tokenizer.decode(tokens.tolist())}"

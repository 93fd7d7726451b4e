"""A plan as JSON, CSV or the table of `table.py`; unknown values are null, empty or n/a."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from hpc_llm.planning.plan import Plan, make_plan
from hpc_llm.planning.published_tables import published_table
from hpc_llm.planning.table import plan_table
from hpc_llm.settings import RunConfig
from hpc_llm.settings.checks import require_choice

__all__ = ["PlanAnswer", "PlanJob", "join_plans", "plan_answer", "render_plan"]


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """A Slurm job that would be submitted."""

    script: str
    """The job script."""
    answer: str
    """Output of `sbatch --test-only`."""


@dataclass(frozen=True, kw_only=True)
class PlanAnswer:
    """Output of `hpc-llm plan` for one configuration."""

    text: str
    """The plan in its format."""
    can_run: bool
    """Whether training would not fail for a reason that is known now."""


def _json(plan: Plan, jobs: Sequence[PlanJob]) -> str:
    data = asdict(plan)
    for row, written in zip(plan.rows, data["rows"], strict=True):
        if row.memory is not None:
            written["memory"]["total"] = row.memory.total
    if plan.evaluation.memory is not None:
        data["evaluation"]["memory"]["total"] = plan.evaluation.memory.total
    data["jobs"] = [asdict(job) for job in jobs]
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


PLAN_KEYS = (
    *("model", "recipe", "vocab_size_new", "cluster", "device", "devices", "precision"),
    *("batch_tokens", "sequence_length", "micro_batch_tokens", "zero_stage", "recompute"),
)
ROW_KEYS = (
    *("stage", "method", "trainable", "parameters", "tokens", "flops_per_token"),
    *("share_of_full", "flops", "pf_days", "flops_6n"),
)
LAST_KEYS = ("fits", "tight", "network_hours", "network_share", "exposed_share")
ESTIMATES = tuple(
    (end, key)
    for end in ("low", "mid", "high")
    for key in ("hours", "device_hours", "money", "energy_kwh", "co2_kg")
)


def _csv(plan: Plan) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    estimates = [f"{key}_{end}" for end, key in ESTIMATES]
    last = ["memory_bytes", *LAST_KEYS, "currency", "problems"]
    writer.writerow([*PLAN_KEYS, *ROW_KEYS, "hardware_flops", *estimates, *last])
    whole = [getattr(plan, key) for key in PLAN_KEYS]
    for row in [*plan.rows, plan.total]:
        projected = [getattr(getattr(row.projection, end), key) for end, key in ESTIMATES]
        own = [getattr(row, key) for key in ROW_KEYS]
        peak = None if row.memory is None else row.memory.total
        ends = [peak, *(getattr(row, key) for key in LAST_KEYS)]
        ends += [plan.currency, " | ".join(plan.problems)]
        writer.writerow([*whole, *own, row.projection.flops, *projected, *ends])
    return out.getvalue()


def render_plan(plan: Plan, format: str = "table", jobs: Sequence[PlanJob] = ()) -> str:
    """Return the plan as text in `format`: table, json or csv (without the jobs)."""
    require_choice("plan.format", format, ("table", "json", "csv"))
    if format == "json":
        return _json(plan, jobs)
    if format == "csv":
        return _csv(plan)
    return plan_table(plan) + "\n" + jobs_text(jobs)


def jobs_text(jobs: Sequence[PlanJob], noun: str = "job") -> str:
    """Return the scripts of jobs, or of job arrays, with the answer of Slurm to each."""
    texts = []
    for number, job in enumerate(jobs, start=1):
        head = f"{noun} {number} of {len(jobs)}"
        texts.append(f"\n{head}:\n\n{job.script}\nsbatch --test-only: {job.answer}\n")
    return "".join(texts)


def join_plans(answers: Mapping[str, str], format: str) -> str:
    """Join the plans of a sweep (text by overrides of the trial) into one text in `format`."""
    texts = list(answers.values())
    if format == "json":
        return "[\n" + ",\n".join(text.rstrip() for text in texts) + "\n]\n"
    if format == "csv":
        return "".join(texts[:1] + [text.split("\n", 1)[1] for text in texts[1:]])
    return "\n".join(f"# {words}\n{text}" for words, text in answers.items())


def plan_answer(
    cfg: RunConfig,
    adapted_rows: Callable[[RunConfig, int], int],
    jobs: Sequence[PlanJob] = (),
) -> PlanAnswer:
    """Return the output of `hpc-llm plan`: the plan of `cfg`, or a published table.

    `adapted_rows` is as for `make_plan`.
    """
    if cfg.plan.table is not None:
        return PlanAnswer(text=published_table(cfg.plan.table), can_run=True)
    plan = make_plan(cfg, adapted_rows)
    return PlanAnswer(text=render_plan(plan, cfg.plan.format, jobs), can_run=not plan.problems)

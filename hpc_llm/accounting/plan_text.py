"""A plan as JSON, as CSV or as the table of `plan_table.py`; what is not known is null or empty."""

import csv
import io
import json
from dataclasses import asdict, dataclass

from hpc_llm.accounting.plan_table import plan_table
from hpc_llm.accounting.planning import Plan, make_plan
from hpc_llm.accounting.published_tables import published_table
from hpc_llm.settings import RunConfig
from hpc_llm.settings.checks import require_choice

__all__ = ["PlanJob", "plan_answer", "render_plan"]


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """The job that would be submitted, and what Slurm says about it."""

    script: str
    answer: str
    """Of `sbatch --test-only`."""


def _json(plan: Plan, job: PlanJob | None) -> str:
    data = asdict(plan)
    for row, written in zip(plan.rows, data["rows"], strict=True):
        if row.memory is not None:
            written["memory"]["total"] = row.memory.total
    data["job"] = None if job is None else asdict(job)
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def _csv(plan: Plan) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ["stage", "method", "trainable", "parameters", "tokens", "flops_per_token"]
    keys += ["share_of_full", "flops", "flops_6n"]
    parts = [
        (end, key)
        for end in ("low", "mid", "high")
        for key in ("hours", "device_hours", "money", "energy_kwh", "co2_kg")
    ]
    last = ["memory_bytes", "fits", "network_share", "currency"]
    writer.writerow([*keys, "hardware_flops", *(f"{key}_{end}" for end, key in parts), *last])
    for row in [*plan.rows, plan.total]:
        estimates = [getattr(getattr(row.projection, end), key) for end, key in parts]
        own = [getattr(row, key) for key in keys]
        peak = None if row.memory is None else row.memory.total
        ends = [peak, row.fits, row.network_share, plan.currency]
        writer.writerow([*own, row.projection.flops, *estimates, *ends])
    return out.getvalue()


def render_plan(plan: Plan, format: str = "table", job: PlanJob | None = None) -> str:
    """Return the plan as a text of `format`: table, json or csv; csv leaves the job out."""
    require_choice("plan.format", format, ("table", "json", "csv"))
    if format == "json":
        return _json(plan, job)
    if format == "csv":
        return _csv(plan)
    text = plan_table(plan)
    if job is not None:
        text += f"\n\njob script:\n\n{job.script}\nsbatch --test-only: {job.answer}"
    return text + "\n"


def plan_answer(cfg: RunConfig, job: PlanJob | None = None) -> str:
    """Return what `hpc-llm plan` prints: the plan of `cfg`, or a published table."""
    if cfg.plan.table is not None:
        return published_table(cfg.plan.table)
    return render_plan(make_plan(cfg), cfg.plan.format, job)

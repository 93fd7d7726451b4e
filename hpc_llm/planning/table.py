"""A plan as a table for the console; an unknown number is `n/a`."""

from collections.abc import Sequence

from hpc_llm.accounting.columns import columns, figure
from hpc_llm.accounting.flops import pf_days
from hpc_llm.accounting.memory import ROOM
from hpc_llm.accounting.projection import Estimate
from hpc_llm.planning.budget import BudgetLine
from hpc_llm.planning.host import host_line
from hpc_llm.planning.plan import Plan
from hpc_llm.planning.rows import PlanRow

__all__ = ["plan_table"]

LONG_HOURS = 100.0  # longer runs are printed in days
GIB = 2**30
MEMORY_PARTS = {
    "weights": "weights",
    "node_weights": "node copy",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "loss",
    "recomputed": "layer",
    "live_parameters": "live",
    "buckets": "buckets",
    "context": "context",
}
VERDICTS = {True: "fits", False: "DOES NOT FIT", None: "n/a"}
DEVICE = {"gpu": "GPU", "cpu": "core"}


def _unit(plan: Plan) -> tuple[str, float]:
    """Return the unit of time, hours or days, and its length in hours."""
    hours = plan.total.projection.mid.hours
    return ("days", 24.0) if hours is not None and hours > LONG_HOURS else ("hours", 1.0)


def _span(estimates: Sequence[Estimate], key: str, unit: float = 1.0) -> str:
    values = [getattr(estimate, key) for estimate in estimates]
    if None in values:
        return "n/a"
    return _joined([figure(value / unit) for value in values])


def _joined(written: Sequence[str]) -> str:
    """Join low, mid and high; one where all are equal."""
    return written[0] if len(set(written)) == 1 else " / ".join(written)


def _head(plan: Plan) -> list[str]:
    """Return problems and warnings, then model and machine."""
    count = plan.parameters
    return [
        *(f"CANNOT RUN as it is: {problem}" for problem in plan.problems),
        *(f"WARNING: {warning}" for warning in plan.warnings),
        f"{plan.model}: {count.total:,} parameters (body {count.body:,}, embedding "
        f"{count.embedding:,}, head {count.head:,})",
        f"recipe {plan.recipe}, vocabulary {plan.vocab_size_old:,} -> {plan.vocab_size_new:,}",
        f"{plan.devices} x {plan.device} ({plan.cluster}), {plan.peak_tflops:.4g} TFLOP/s "
        f"{plan.precision} each",
        f"batch {plan.batch_tokens:,} tokens in sequences of {plan.sequence_length:,}, micro-batch "
        f"{plan.micro_batch_tokens:,}, gradient accumulation steps {plan.micro_steps:,}",
    ]


def _work_cells(row: PlanRow) -> list[str]:
    trainable = share = per_token = of_full = ""
    if row.trainable is not None and row.parameters is not None:
        trainable, share = f"{row.trainable:,}", f"{row.trainable / row.parameters:.1%}"
    if row.flops_per_token is not None and row.share_of_full is not None:
        per_token, of_full = figure(row.flops_per_token / 1e9), f"{row.share_of_full:.3f}"
    return [
        row.stage,
        row.method,
        trainable,
        share,
        f"{row.tokens:,}",
        per_token,
        of_full,
        figure(row.pf_days),
        figure(pf_days(row.projection.flops)),
    ]


def _work(plan: Plan) -> list[str]:
    heads = ["stage", "method", "trainable", "", "tokens each" if plan.tokens_each else "tokens"]
    heads += ["GF/token", "of full", "PF-days", "hardware"]
    return columns([heads, *(_work_cells(row) for row in [*plan.rows, plan.total])], left=2)


def _costs(plan: Plan) -> list[str]:
    name, unit = _unit(plan)
    each = (("hours", name, unit), ("device_hours", f"{DEVICE[plan.kind]}-hours", 1.0))
    kinds = (*each, ("money", plan.currency, 1.0))
    heads = (f"{head} low/mid/high" for _, head, _ in kinds)
    lines = [["stage", *heads, "network", "not hidden"]]
    for row in [*plan.rows, plan.total]:
        projection = row.projection
        ends = [projection.low, projection.mid, projection.high]
        shares = [
            "n/a" if share is None else f"+{share:.1%}"
            for share in (row.network_share, row.exposed_share)
        ]
        spans = [_span(ends, key, unit) for key, _, unit in kinds]
        lines.append([row.stage, *spans, *(shares if row.method else ["", ""])])
    note = "network: time between nodes relative to compute (mid); not hidden: what compute leaves"
    return ["", *columns(lines), note]


def _traffic(plan: Plan) -> list[str]:
    """Return a row for each stage: GB that a node sends in a step, to others and inside."""
    lines = [["GB a node and step", "between nodes", "inside a node"]]
    for row in plan.rows:
        if row.traffic is not None and any(row.traffic):
            lines.append([row.stage, *(figure(sent / 1e9) for sent in row.traffic)])
    return ["", *columns(lines)] if len(lines) > 1 else []


def _budget(plan: Plan) -> list[str]:
    """Return a line for each limit: the share that the plan takes, and what the limit buys."""
    units = {"money": f" {plan.currency}"}
    return [
        f"budget.{line.key}={line.limit:g}{units.get(line.key, '')}: {_spent(plan, line)}"
        for line in plan.budget
    ]


def _spent(plan: Plan, line: BudgetLine) -> str:
    points = (line.low, line.mid, line.high)
    if line.mid.share is None:
        return "the share that the plan takes is unknown"
    word, unit = ("billion", 1e9) if plan.total.tokens >= 1e9 else ("million", 1e6)
    shares = _joined([f"{point.share:.0%}" for point in points])
    bought = _joined([figure((point.tokens or 0) / unit) for point in points])
    end = "is not reached"
    if line.mid.stage is not None:
        end = f"ends in {line.mid.stage} at step {line.mid.step:,}"
    return (
        f"the plan takes {shares} (low/mid/high), the limit buys {bought} of "
        f"{figure(plan.total.tokens / unit)} {word} tokens and {end} (mid)"
    )


def _memory(plan: Plan) -> list[str]:
    """Return a row for each stage: GiB of one device by part."""
    rows = [row for row in plan.rows if row.memory is not None]
    parts = {
        key: name
        for key, name in MEMORY_PARTS.items()
        if any(getattr(row.memory, key) for row in rows)
    }
    lines = [["GiB a device", *parts.values(), "peak", f"of {figure(plan.memory_gib)}"]]
    for row in rows:
        assert row.memory is not None
        cells = [figure(getattr(row.memory, key) / GIB) for key in parts]
        verdict = "tight" if row.tight else VERDICTS[row.fits]
        lines.append([row.stage, *cells, figure(row.memory.total / GIB), verdict])
    again = {"none": "without", "full": "with full"}.get(plan.recompute, f"with {plan.recompute}")
    note = (
        f"ZeRO {plan.zero_stage}, {again} recomputation, fragmentation not counted; fits: into "
        f"{ROOM:.0%} of the memory"
    )
    return ["", *columns(lines), note] if rows else []


def _evaluation(plan: Plan) -> list[str]:
    """Return a line with the devices and the memory of evaluation."""
    found = plan.evaluation
    if found.memory is None:
        return []
    where = {"one": "one device", "node": "one node", "all": "all nodes"}[found.place]
    how = f"partitioned over {found.devices} devices" if found.partitioned else "the whole model"
    return [
        f"evaluation on {where}: {how}, {figure(found.memory.total / GIB)} of "
        f"{figure(plan.memory_gib)} GiB a device, {VERDICTS[found.fits]}",
        f"bits per byte and phi there: about {figure(found.hours)} hours (mid), without tasks and "
        "network",
    ]


def _suggestions(plan: Plan) -> list[str]:
    """Return the suggestions with which every stage fits, one a line."""
    if plan.suggestions is None:
        return []
    if not plan.suggestions:
        return ["", "no suggestion: nothing fits; use larger devices, or a smaller model"]
    name, unit = _unit(plan)
    lines = [["nodes", name, f"{DEVICE[plan.kind]}-hours", plan.currency, "GiB", "overrides"]]
    for way in plan.suggestions:
        time = None if way.hours is None else way.hours / unit
        cells = [figure(value) for value in (time, way.device_hours, way.money)]
        memory = figure(way.memory_bytes / GIB)
        lines.append([str(way.nodes), *cells, memory, way.overrides])
    width = max(len(line[-1]) for line in lines)
    lines = [[*line[:-1], line[-1].ljust(width)] for line in lines]
    return ["", "all stages fit with (mid):", *columns(lines)]


def _tokenizer(plan: Plan) -> str:
    text = f"tokenizer with {plan.vocab_size_new:,} tokens"
    if plan.token_cost_ratio is None:
        return f"{text}: not used by a stage of this recipe"
    text += f": a token costs x{plan.token_cost_ratio:.3f} in these stages"
    if plan.text_cost_ratio is None:
        return f"{text}; a text: n/a without plan.token_ratio (new tokens / old tokens)"
    return f"{text}; with tokens x{plan.token_ratio:.3f} a text costs x{plan.text_cost_ratio:.3f}"


def _energy(plan: Plan) -> str:
    points = [plan.total.projection.low, plan.total.projection.mid, plan.total.projection.high]
    if plan.watts is None:
        return "energy n/a: set hardware.watts"
    if points[0].energy_kwh is None:
        return "energy n/a: hours are unknown"
    energy = f"energy {_span(points, 'energy_kwh')} kWh (modelled: devices at board power)"
    if points[0].co2_kg is None:
        return f"{energy}, CO2 n/a: set cluster.carbon_g_per_kwh"
    return f"{energy}, {_span(points, 'co2_kg')} kg CO2"


def plan_table(plan: Plan) -> str:
    """Return the plan as text: problems, stages, costs, memory, suggestions, notes."""
    lines = [
        *_head(plan),
        "",
        *_work(plan),
        *_costs(plan),
        *_budget(plan),
        *_traffic(plan),
        *_memory(plan),
        *_evaluation(plan),
        *host_line(plan.host, plan.node_memory_gib),
        *_suggestions(plan),
        "",
        _energy(plan),
        _tokenizer(plan),
        f"6 N D, which counts every parameter as trained: {figure(pf_days(plan.total.flops_6n))} "
        "PF-days in total",
    ]
    return "\n".join([*lines, *plan.notes])

"""Plans the costs of a recipe, stage by stage, before it runs: `hpc-llm plan`.

Needs no weights and no torch: the model is the `config.json` of its settings or of its folder,
with the vocabulary size of the adapted model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpc_llm.accounting.architecture import Architecture, ParameterCount
from hpc_llm.accounting.flops import PF_DAY
from hpc_llm.accounting.host_memory import HostMemory
from hpc_llm.accounting.method import stage_method
from hpc_llm.accounting.model_file import context_length, model_config
from hpc_llm.accounting.money import priced
from hpc_llm.planning.budget import BudgetLine, plan_budget
from hpc_llm.planning.counted import CountedStage
from hpc_llm.planning.evaluation import EvaluationPlan, evaluation_warnings, plan_evaluation
from hpc_llm.planning.fitting import Suggestion, suggestions
from hpc_llm.planning.host import host_warnings, plan_host
from hpc_llm.planning.notes import plan_notes
from hpc_llm.planning.rows import PlanRow, plan_row, sum_rows
from hpc_llm.planning.sizes import adapted_parameters, closed_form, stage_models
from hpc_llm.planning.warnings import plan_problems, plan_warnings
from hpc_llm.planning.work import Work, relative_cost, run_setup
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import RunConfig

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Estimated costs of a recipe as intervals, with their assumptions."""

    model: str
    """Name of the model."""
    recipe: str
    """Name of the recipe."""
    parameters: ParameterCount
    """Of the adapted model, with its new vocabulary."""
    vocab_size_old: int
    """Of the base model."""
    vocab_size_new: int
    """Of the adapted model."""
    token_ratio: float | None
    """New tokens / old tokens on the same text."""
    token_cost_ratio: float | None
    """Cost of a token in the adapting stages, relative to the same with the old vocabulary."""
    text_cost_ratio: float | None
    """The same for a text, which has fewer tokens with the new vocabulary."""
    nodes: int
    """Nodes of the job."""
    devices: int
    """Devices of all nodes."""
    device: str
    """Name of the device."""
    kind: str
    """gpu | cpu; a `cpu` device is one core."""
    cluster: str
    """Its name, nodes x devices of a node."""
    precision: str
    """fp32 | bf16 | fp16."""
    peak_tflops: float
    """Dense, of one device."""
    utilisation_low: float | None
    """Lower share of the peak in the catalogue."""
    utilisation_high: float | None
    """Higher share of the peak in the catalogue."""
    goodput: float
    """Useful share of the allocated time."""
    link_gb_per_second: float | None
    """Bandwidth of a node to the others."""
    batch_tokens: int
    """Tokens of an optimizer step."""
    sequence_length: int
    """Tokens of a sequence."""
    micro_batch_tokens: int
    """Tokens of one forward pass of a rank."""
    micro_steps: int
    """Gradient accumulation steps of an optimizer step."""
    zero_stage: int
    """ZeRO stage: 0, 1, 2 or 3."""
    recompute: str
    """Activations recomputed in the backward pass: none, selective or full."""
    memory_gib: float | None
    """Memory of one device."""
    watts: float | None
    """Board power of one device."""
    currency: str
    """Currency of money and prices."""
    price_low: float | None
    """Lower price of a device-hour, in `currency`."""
    price_high: float | None
    """Higher price of a device-hour, in `currency`."""
    price_date: str
    """When the prices were collected."""
    tokens_each: bool
    """Whether `plan.tokens` sets the tokens of every stage."""
    rows: list[PlanRow]
    """One row per training stage."""
    evaluation: EvaluationPlan
    """Devices and memory of evaluation."""
    host: HostMemory | None
    """Host memory of a node by part of the recipe; None: the sizes of the model are unknown."""
    node_memory_gib: float | None
    """Memory of a node."""
    total: PlanRow
    """Their sum."""
    budget: list[BudgetLine]
    """Costs relative to each limit that is set."""
    problems: list[str]
    """Known reasons why training would fail."""
    warnings: list[str]
    """Possible problems."""
    suggestions: list[Suggestion] | None
    """Settings with which all stages fit, if one does not; [] if none was found."""
    notes: list[str]
    """Conventions, sources and dates of the numbers."""


def _work(cfg: RunConfig, name: str, model: Architecture | CountedStage) -> Work:
    """Return the work of a stage; `cfg` is as the stage trains with it."""
    stage = cfg.stages[name]
    counted = model if isinstance(model, CountedStage) else None
    method = stage_method(stage, key=f"stages.{name}", any_names=counted is not None)
    arch = None if isinstance(model, CountedStage) else model
    work = Work(stage=name, arch=arch, method=method, tokens=1, counted=counted)
    limits = [stage.steps * cfg.train.batch_tokens]
    if stage.tokens is not None:
        limits.append(stage.tokens)
    if stage.pf_days is not None:
        per_token = work.flops_per_token(cfg.train.sequence_length)
        limits.append(max(1, round(stage.pf_days * PF_DAY / per_token)))
    return replace(work, tokens=cfg.plan.tokens or min(limits))


def _as_trained(cfg: RunConfig, longest: int | None) -> RunConfig:
    """Return `cfg` with sequences within the context length and prices in the budget's currency."""
    train = cfg.train
    if longest is not None and longest < train.sequence_length:
        tokens = train.batch_tokens - train.batch_tokens % longest
        train = replace(train, sequence_length=longest, batch_tokens=tokens)
    return replace(cfg, train=train, hardware=priced(cfg.hardware, cfg.budget))


def _token_ratio(cfg: RunConfig, rows: int) -> float | None:
    """New tokens / old tokens: as set, else as measured by the tokenizer stage of the run.

    Only if the measured vocabulary has the `rows` of the planned one.
    """
    record = RunFolder(cfg.folder).finished("tokenizer")
    if cfg.plan.token_ratio is not None or record is None:
        return cfg.plan.token_ratio
    result = record.get("result", {})
    if result.get("rows", result.get("vocab_size")) != rows:
        return None
    ratio: float | None = result.get("token_ratio")
    return ratio


def _token_cost_ratio(cfg: RunConfig, works: Sequence[Work], old_size: int) -> float | None:
    """Cost of the adapting stages, relative to the same with the old vocabulary; None: unknown."""
    if any(work.arch is None for work in works):
        return None
    adapting = [work for work in works if work.stage in cfg.adaptation]
    return relative_cost(cfg, adapting, [_with_rows(w, old_size) for w in adapting])


def _with_rows(work: Work, rows: int) -> Work:
    """Return `work` with a vocabulary of `rows` tokens."""
    assert work.arch is not None
    return replace(work, arch=replace(work.arch, vocab_size=rows))


def _machine(cfg: RunConfig) -> dict[str, Any]:
    """Return the fields of `Plan` about devices and prices."""
    hardware, cluster = cfg.hardware, cfg.cluster
    same = ["kind", "utilisation_low", "utilisation_high", "memory_gib", "watts"]
    same += ["currency", "price_low", "price_high", "price_date"]
    return {key: getattr(hardware, key) for key in same} | {
        "nodes": cluster.nodes,
        "devices": cluster.devices,
        "device": hardware.name,
        "cluster": f"{cluster.name}, {cluster.nodes} x {cluster.devices_per_node}",
        "peak_tflops": hardware.peak_flops_per_second(cfg.train.precision) / 1e12,
        "goodput": cluster.goodput,
        "link_gb_per_second": cluster.link_gb_per_second,
    }


def _step(cfg: RunConfig) -> dict[str, Any]:
    """Return the fields of `Plan` about the execution of a step."""
    setup, micro_steps = run_setup(cfg)
    return {
        "precision": cfg.train.precision,
        "batch_tokens": cfg.train.batch_tokens,
        "sequence_length": cfg.train.sequence_length,
        "micro_batch_tokens": setup.tokens,
        "micro_steps": micro_steps,
        "zero_stage": cfg.zero.stage,
        "recompute": cfg.train.recompute,
    }


def _trained_rows(cfg: RunConfig, old: int) -> int:
    return cfg.tokenizer.vocab_size


def make_plan(
    cfg: RunConfig, adapted_rows: Callable[[RunConfig, int], int] = _trained_rows
) -> Plan:
    """Plan every training stage; one from scratch has the base model's own vocabulary.

    `adapted_rows` gives the embedding rows of the adapted model for those of the base model
    (`hpc_llm.vocabulary.modes`); the default is a vocabulary that the run trains. Raises
    `UserError` for a model of unknown sizes, a precision that the device lacks, a currency without
    an exchange rate and a micro-batch below one sequence.
    """
    config, remarks = model_config(cfg.model)
    asked, base = cfg, closed_form(cfg, config)
    own = context_length(config)
    longest = None if own is None else int(own * cfg.model.stretch)
    cfg = _as_trained(asked, longest)
    old_size = int(config.get("vocab_size") or cfg.tokenizer.vocab_size)
    new_size = adapted_rows(cfg, old_size)
    models = stage_models(cfg, config, base, (old_size, new_size))
    works = [_work(cfg.for_stage(name), name, models[name]) for name in cfg.stages]
    rows = [plan_row(cfg, work) for work in works]
    budget, evaluation = plan_budget(cfg, rows), plan_evaluation(cfg, config)
    host, node_gib = plan_host(cfg, works, old_size), cfg.cluster.memory_gib_per_node
    ratio, per_token = _token_ratio(cfg, new_size), _token_cost_ratio(cfg, works, old_size)
    return Plan(
        model=cfg.model.label,
        recipe=cfg.recipe.name,
        parameters=adapted_parameters(cfg, base, works, new_size),
        vocab_size_old=old_size,
        vocab_size_new=new_size,
        token_ratio=ratio,
        token_cost_ratio=per_token,
        text_cost_ratio=None if ratio is None or per_token is None else ratio * per_token,
        **_machine(cfg),
        **_step(cfg),
        tokens_each=cfg.plan.tokens is not None,
        rows=rows,
        evaluation=evaluation,
        host=host,
        node_memory_gib=node_gib,
        total=sum_rows(rows),
        budget=budget,
        problems=plan_problems(asked, cfg, rows, longest),
        warnings=[
            *remarks,
            *plan_warnings(cfg, rows, budget),
            *evaluation_warnings(cfg, evaluation),
            *host_warnings(host, node_gib),
        ],
        suggestions=suggestions(cfg, works) if False in [row.fits for row in rows] else None,
        notes=plan_notes(asked, cfg, works),
    )

"""What a recipe will cost, stage by stage, before anything is spent: `hpc-llm plan`.

Needs no weights and no torch: the model is the `config.json` of its settings or of its folder,
and the vocabulary is the one that the adapted model will have.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hpc_llm.accounting.architecture import Architecture, ParameterCount, parameter_count
from hpc_llm.accounting.fitting import (
    Suggestion,
    Work,
    network_hours,
    run_machine,
    run_memory,
    suggestions,
)
from hpc_llm.accounting.flops import flops_per_token
from hpc_llm.accounting.memory import MemoryPlan, fits
from hpc_llm.accounting.method import Method, stage_method, trainable_parameters
from hpc_llm.accounting.money import priced
from hpc_llm.accounting.plan_notes import plan_notes
from hpc_llm.accounting.projection import Estimate, Projection, project
from hpc_llm.accounting.published import tokenizer_saving
from hpc_llm.errors import UserError
from hpc_llm.rundir import RunFolder
from hpc_llm.settings import ModelSettings, RunConfig

__all__ = ["Plan", "PlanRow", "make_plan", "sum_rows"]

ROBERTA = ("roberta", "xlm-roberta", "camembert")  # two of their positions hold no token


@dataclass(frozen=True, kw_only=True)
class PlanRow:
    """One stage, or the sum of all."""

    stage: str
    method: str
    trainable: int | None
    """Parameters that receive a gradient; None in the sum."""
    parameters: int | None
    """Parameters of the model in this stage."""
    tokens: int
    flops_per_token: float | None
    """Exact and causal, without recomputation."""
    share_of_full: float | None
    """`flops_per_token` relative to training everything."""
    flops: int
    """Exact and causal, of the whole stage."""
    flops_6n: int
    """6 N D, which takes no notice of the method."""
    projection: Projection
    """Time, money and energy of the FLOPs that the machine carries out."""
    memory: MemoryPlan | None
    """Peak of one device; None in the sum."""
    fits: bool | None
    """Whether that is less than the device has; None where it is not known."""
    network_share: float | None
    """Time on the network between nodes relative to the time of computing, at `mid`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The bill of a recipe as intervals, and what it rests on."""

    model: str
    recipe: str
    parameters: ParameterCount
    """Of the adapted model, with its new vocabulary."""
    vocab_size_old: int
    vocab_size_new: int
    token_ratio: float | None
    """New tokens over old ones on the same text."""
    token_cost_ratio: float
    """What training on one token costs with the new vocabulary, relative to the old one."""
    text_cost_ratio: float | None
    """The same for one text, which has fewer tokens then."""
    nodes: int
    devices: int
    """Of all nodes."""
    device: str
    kind: str
    """gpu | cpu; a `cpu` device is one core."""
    cluster: str
    """Its name, nodes x devices of a node."""
    precision: str
    peak_tflops: float
    """Dense, of one device."""
    batch_tokens: int
    sequence_length: int
    zero_stage: int
    recompute: bool
    memory_gib: float | None
    """What one device has."""
    currency: str
    rows: list[PlanRow]
    total: PlanRow
    suggestions: list[Suggestion] | None
    """Ways in which all stages fit, where one does not; [] if none was found."""
    notes: list[str]
    """Conventions, sources and dates of the figures."""


def _model_config(model: ModelSettings) -> Mapping[str, Any]:
    """Return the `config.json` of a model: from its settings, else from its folder.

    Raises `UserError` where neither tells it.
    """
    if model.architecture:
        return model.architecture
    if model.path is None:
        raise UserError("model.path=null: plan needs a model; give model=NAME or model.path=FOLDER")
    file = Path(model.path).expanduser() / "config.json"
    if not file.is_file():
        raise UserError(
            f"model.path={model.path}: plan finds no config.json there, and does not download one; "
            "choose model=NAME out of conf/model/, or give its sizes as model.architecture"
        )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return config


def _positions(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a row of the model may have; None: any number."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and config.get("model_type") in ROBERTA:
        return int(positions) - 2
    return int(positions) if positions else None


def _work(cfg: RunConfig, name: str, arch: Architecture) -> Work:
    stage = cfg.train.stage(name)
    tokens = cfg.plan.tokens or stage.steps * cfg.train.batch_tokens
    return Work(stage=name, arch=arch, method=stage_method(stage), tokens=tokens)


def _plan_row(cfg: RunConfig, work: Work) -> PlanRow:
    arch, length = work.arch, cfg.train.sequence_length
    method = replace(work.method, recompute=cfg.train.recompute)
    projection = project(arch, method, work.tokens, run_machine(cfg), length)
    per_token = flops_per_token(arch, method, length)
    count = parameter_count(arch)
    needed = run_memory(cfg, work) if cfg.hardware.kind == "gpu" else None
    network, hours = network_hours(cfg, work), projection.mid.hours
    return PlanRow(
        stage=work.stage,
        method=method.label,
        trainable=trainable_parameters(arch, method),
        parameters=count.total,
        tokens=work.tokens,
        flops_per_token=per_token,
        share_of_full=per_token / flops_per_token(arch, Method.full(), length),
        flops=math.ceil(per_token * work.tokens),
        flops_6n=6 * count.active * work.tokens,
        projection=projection,
        memory=needed,
        fits=None if needed is None else fits(needed, cfg.hardware),
        network_share=None if network is None or hours is None else network / hours,
    )


def _sum_estimates(estimates: Sequence[Estimate]) -> Estimate:
    sums: dict[str, float | None] = {}
    for name in (f.name for f in fields(Estimate)):
        values = [getattr(estimate, name) for estimate in estimates]
        sums[name] = None if None in values else sum(values)
    return Estimate(**sums | {"utilisation": estimates[0].utilisation if estimates else None})


def sum_rows(rows: Sequence[PlanRow]) -> PlanRow:
    """Add the stages up; a figure that one of them lacks is None."""
    projections = [row.projection for row in rows]
    return PlanRow(
        stage="sum",
        method="",
        trainable=None,
        parameters=None,
        tokens=sum(row.tokens for row in rows),
        flops_per_token=None,
        share_of_full=None,
        flops=sum(row.flops for row in rows),
        flops_6n=sum(row.flops_6n for row in rows),
        projection=Projection(
            flops=sum(p.flops for p in projections),
            low=_sum_estimates([p.low for p in projections]),
            mid=_sum_estimates([p.mid for p in projections]),
            high=_sum_estimates([p.high for p in projections]),
        ),
        memory=None,
        fits=None,
        network_share=None,
    )


def _as_trained(cfg: RunConfig, positions: int | None) -> RunConfig:
    """Return `cfg` with rows that the model takes and prices in the currency of the budget."""
    train = cfg.train
    if positions is not None and positions < train.sequence_length:
        tokens = train.batch_tokens - train.batch_tokens % positions
        train = replace(train, sequence_length=positions, batch_tokens=tokens)
    return replace(cfg, train=train, hardware=priced(cfg.hardware, cfg.budget))


def _token_ratio(cfg: RunConfig) -> float | None:
    """New tokens over old ones: as given, else as the run's own tokenizer stage measured it."""
    record = RunFolder(cfg.folder).finished("tokenizer")
    if cfg.plan.token_ratio is not None or record is None:
        return cfg.plan.token_ratio
    result = record.get("result", {})
    if result.get("vocab_size") != cfg.tokenizer.vocab_size:
        return None
    ratio: float | None = result.get("token_ratio")
    return ratio


def make_plan(cfg: RunConfig) -> Plan:
    """Plan every stage of `cfg.recipe`; `pretrain` has the base model's own vocabulary.

    Raises `UserError` for a model whose sizes are not known, a precision that the device lacks and
    a currency without a rate.
    """
    config = _model_config(cfg.model)
    asked, base = cfg, Architecture.from_config(config)
    cfg = _as_trained(asked, _positions(config))
    adapted = replace(base, vocab_size=cfg.tokenizer.vocab_size)
    works = [
        _work(cfg, name, base if name == "pretrain" else adapted) for name in cfg.recipe.stages
    ]
    rows = [_plan_row(cfg, work) for work in works]
    ratio = _token_ratio(cfg)
    per_token = tokenizer_saving(base, adapted.vocab_size, (1, 1), cfg.train.sequence_length)
    return Plan(
        model=cfg.model.label,
        recipe=cfg.recipe.name,
        parameters=parameter_count(adapted),
        vocab_size_old=base.vocab_size,
        vocab_size_new=adapted.vocab_size,
        token_ratio=ratio,
        token_cost_ratio=per_token,
        text_cost_ratio=None if ratio is None else ratio * per_token,
        nodes=cfg.cluster.nodes,
        devices=cfg.cluster.devices,
        device=cfg.hardware.name,
        kind=cfg.hardware.kind,
        cluster=f"{cfg.cluster.name}, {cfg.cluster.nodes} x {cfg.cluster.devices_per_node}",
        precision=cfg.train.precision,
        peak_tflops=cfg.hardware.peak_flops_per_second(cfg.train.precision) / 1e12,
        batch_tokens=cfg.train.batch_tokens,
        sequence_length=cfg.train.sequence_length,
        zero_stage=cfg.zero.stage,
        recompute=cfg.train.recompute,
        memory_gib=cfg.hardware.memory_gib,
        currency=cfg.hardware.currency,
        rows=rows,
        total=sum_rows(rows),
        suggestions=suggestions(cfg, works) if False in [row.fits for row in rows] else None,
        notes=plan_notes(asked, cfg),
    )

"""What a recipe will cost, stage by stage, before anything is spent: `hpc-llm plan`.

Needs no weights and no torch: the model is the `config.json` of its settings or of its folder,
and the vocabulary is the one that the adapted model will have.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hpc_llm.accounting.architecture import Architecture, ParameterCount, parameter_count
from hpc_llm.accounting.fitting import remedy, run_setup
from hpc_llm.accounting.flops import flops_per_token
from hpc_llm.accounting.hardware import Machine
from hpc_llm.accounting.memory import MemoryPlan, fits, memory
from hpc_llm.accounting.method import Method, stage_method, trainable_parameters
from hpc_llm.accounting.plan_notes import plan_notes
from hpc_llm.accounting.projection import Estimate, Projection, project
from hpc_llm.accounting.traffic import network_seconds
from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings, RunConfig

__all__ = ["Plan", "PlanRow", "make_plan", "model_architecture", "sum_rows"]


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
    remedy: str | None
    """Overrides with which it fits, where it does not; "" if none was found."""
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
    devices: int
    device: str
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
    notes: list[str]
    """Conventions, sources and dates of the figures."""


def model_architecture(model: ModelSettings) -> Architecture:
    """Return the sizes of a model: from its settings, else from the `config.json` of its folder.

    Raises `UserError` where neither tells them.
    """
    if model.architecture is not None:
        return Architecture.from_config(model.architecture)
    if model.path is None:
        raise UserError("model.path=null: plan needs a model; give model=NAME or model.path=FOLDER")
    file = Path(model.path).expanduser() / "config.json"
    if not file.is_file():
        raise UserError(
            f"model.path={model.path}: plan finds no config.json there, and does not download one; "
            "choose model=NAME out of conf/model/, or give its sizes as model.architecture"
        )
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return Architecture.from_config(config)


def _network_share(
    cfg: RunConfig, arch: Architecture, method: Method, projection: Projection, tokens: int
) -> float | None:
    setup, micro_steps = run_setup(cfg)
    seconds = network_seconds(arch, method, setup, cfg.cluster, micro_steps)
    if seconds is None or projection.mid.hours is None:
        return None
    steps = tokens / cfg.train.batch_tokens
    return seconds * steps / (projection.mid.hours * 3600 * cfg.cluster.goodput)


def _plan_row(cfg: RunConfig, name: str, arch: Architecture) -> PlanRow:
    stage, length = cfg.train.stage(name), cfg.train.sequence_length
    method = stage_method(stage, recompute=cfg.train.recompute)
    tokens = cfg.plan.tokens or stage.steps * cfg.train.batch_tokens
    machine = Machine(hardware=cfg.hardware, cluster=cfg.cluster, precision=cfg.train.precision)
    projection = project(arch, method, tokens, machine, length)
    per_token = flops_per_token(arch, method, length)
    count = parameter_count(arch)
    needed = memory(arch, method, run_setup(cfg)[0]) if cfg.hardware.kind == "gpu" else None
    fitting = None if needed is None else fits(needed, cfg.hardware)
    return PlanRow(
        stage=name,
        method=method.label,
        trainable=trainable_parameters(arch, method),
        parameters=count.total,
        tokens=tokens,
        flops_per_token=per_token,
        share_of_full=per_token / flops_per_token(arch, Method.full(), length),
        flops=math.ceil(per_token * tokens),
        flops_6n=6 * count.active * tokens,
        projection=projection,
        memory=needed,
        fits=fitting,
        remedy=remedy(cfg, arch, method) if fitting is False else None,
        network_share=_network_share(cfg, arch, method, projection, tokens),
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
        remedy=None,
        network_share=None,
    )


def make_plan(cfg: RunConfig) -> Plan:
    """Plan every stage of `cfg.recipe`; `pretrain` has the base model's own vocabulary.

    Raises `UserError` for a model whose sizes are not known and a precision that the device lacks.
    """
    base = model_architecture(cfg.model)
    adapted = replace(base, vocab_size=cfg.tokenizer.vocab_size)
    rows = [
        _plan_row(cfg, name, base if name == "pretrain" else adapted) for name in cfg.recipe.stages
    ]
    return Plan(
        model=cfg.model.label,
        recipe=cfg.recipe.name,
        parameters=parameter_count(adapted),
        vocab_size_old=base.vocab_size,
        vocab_size_new=adapted.vocab_size,
        devices=cfg.cluster.devices,
        device=cfg.hardware.name,
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
        notes=plan_notes(cfg, base, adapted),
    )

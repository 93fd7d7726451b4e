"""Where evaluation runs: whether the model is partitioned, over which devices, in what memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hpc_llm.accounting.architecture import Architecture
from hpc_llm.accounting.columns import figure
from hpc_llm.accounting.families import NoFormula
from hpc_llm.accounting.flops import step_flops
from hpc_llm.accounting.inference import InferenceMemory, inference_memory
from hpc_llm.accounting.memory import ROOM
from hpc_llm.accounting.method import Method
from hpc_llm.accounting.model_file import model_config
from hpc_llm.accounting.projection import mean_utilisation
from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.settings.launch import PLACES

__all__ = [
    "EvaluationPlan",
    "evaluation_warnings",
    "is_partitioned",
    "part_place",
    "plan_evaluation",
]


TOKEN_BYTES = 4  # of held-out text, an assumption: new vocabularies have more
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Devices and memory of evaluation (bits per byte, phi, tasks, samples)."""

    place: str
    """one (device), node (all devices of a node) or all (nodes)."""
    devices: int
    """Devices of that place."""
    partitioned: bool
    """Whether ZeRO-3 partitions the model over them."""
    memory: InferenceMemory | None
    """Peak of one device; None: unknown."""
    fits: bool | None
    """Whether the peak fits with a margin for fragmentation; None: unknown."""
    hours: float | None
    """Time of bits per byte and of the search for phi (mid), without the network; None: unknown."""


def is_partitioned(cfg: RunConfig, ranks: int, memory_gib: float | None) -> bool:
    """Return whether evaluation on `ranks` GPUs of `memory_gib` each partitions the model.

    As `evaluation.partition` says; null: if the model does not fit one of several GPUs, and where
    neither memory nor sizes are known, never.
    """
    if cfg.evaluation.partition is not None:
        return cfg.evaluation.partition
    if ranks == 1 or memory_gib is None:
        return False
    needed = _bytes(cfg, _sizes(cfg), 1)
    return needed is not None and needed > ROOM * memory_gib * 2**30


def part_place(cfg: RunConfig, part: str) -> str:
    """Return where a part of the chain runs: cpu, one, node or all.

    Parts that evaluate get one device if the model fits it: few batches would keep more of them
    busy. Else they get a node, within which layers are gathered fast, and more only if they must.
    """
    place = PLACES[part]
    return plan_evaluation(cfg).place if place == "one" else place


def plan_evaluation(cfg: RunConfig, config: Mapping[str, Any] | None = None) -> EvaluationPlan:
    """Return the plan of evaluation; `config` is the model's `config.json`; None: look for it."""
    sizes, cluster = _sizes(cfg, config), cfg.cluster
    counts = {"one": 1, "node": cluster.devices_per_node, "all": cluster.devices}
    memory_gib = cfg.hardware.memory_gib if cfg.hardware.kind == "gpu" else None
    asked = cfg.evaluation.partition
    place = "one"
    if cfg.hardware.kind == "gpu" and is_partitioned(cfg, cluster.devices, memory_gib):
        place = "node"
        if _fits(cfg, sizes, counts["node"]) is False and cluster.nodes > 1:
            place = "all"
    devices = counts[place]
    partitioned = bool(asked) or (asked is None and place != "one")
    shares = devices if partitioned else 1
    memory = None
    if isinstance(sizes, Architecture) and cfg.hardware.kind == "gpu":
        tokens = cfg.evaluation.batch_tokens
        memory = inference_memory(sizes, cfg.train.precision, tokens, shares)
    return EvaluationPlan(
        place=place,
        devices=devices,
        partitioned=partitioned,
        memory=memory,
        fits=_fits(cfg, sizes, shares),
        hours=_hours(cfg, sizes, devices) if isinstance(sizes, Architecture) else None,
    )


def _hours(cfg: RunConfig, arch: Architecture, devices: int) -> float | None:
    """Return the hours of bits per byte at every point and of the search for phi."""
    utilisation = mean_utilisation(cfg.hardware)
    if utilisation is None or arch.kind == "encoder":
        return None
    settings = cfg.evaluation
    points = len(cfg.adaptation) + 3  # base, transplant and corrected
    tests, languages = len(cfg.corpus.sources) or len(LANGUAGES), len(LANGUAGES)
    texts = tests * points * settings.test_bytes
    texts += languages * _factors(cfg) * settings.tune_bytes
    window = min(settings.window, arch.max_positions or settings.window)
    seen = texts / TOKEN_BYTES * window / min(settings.stride, window)
    forward = step_flops(arch, Method.full(), 1, window).forward / window
    rate = cfg.hardware.peak_flops_per_second(cfg.train.precision) * utilisation
    return forward * seen / (rate * devices) / 3600


def _factors(cfg: RunConfig) -> int:
    """Return the factors that the search for phi tries: the grid, then golden section."""
    grid = cfg.correct.grid
    widest = max((high - low for low, high in pairwise(sorted(grid))), default=0.0)
    steps = math.log(max(1.0, 2 * widest / cfg.correct.tolerance)) / math.log(GOLDEN_RATIO)
    return len(grid) + math.ceil(steps) + 1


def evaluation_warnings(cfg: RunConfig, plan: EvaluationPlan) -> list[str]:
    """Return a warning if evaluation does not fit its devices."""
    if plan.fits is not False or plan.memory is None:
        return []
    fix = "use larger devices" if plan.partitioned else "use evaluation.partition=true"
    return [
        f"evaluation does not fit: it needs {figure(plan.memory.total / 2**30)} of "
        f"{figure(cfg.hardware.memory_gib)} GiB of a device; {fix}"
    ]


def _fits(cfg: RunConfig, sizes: Architecture | int | None, shares: int) -> bool | None:
    needed, memory_gib = _bytes(cfg, sizes, shares), cfg.hardware.memory_gib
    if needed is None or memory_gib is None or cfg.hardware.kind != "gpu":
        return None
    return needed <= ROOM * memory_gib * 2**30


def _bytes(cfg: RunConfig, sizes: Architecture | int | None, shares: int) -> int | None:
    """Return the peak of one device: by the formula, else the weights of the files alone."""
    if isinstance(sizes, Architecture):
        tokens = cfg.evaluation.batch_tokens
        return inference_memory(sizes, cfg.train.precision, tokens, shares).total
    return None if sizes is None else -(-sizes // shares)


def _sizes(cfg: RunConfig, config: Mapping[str, Any] | None = None) -> Architecture | int | None:
    """Return the sizes of the base model, else the bytes of its weight files; None: unknown."""
    try:
        found = model_config(cfg.model)[0] if config is None else config
        return Architecture.from_config(found)
    except NoFormula:
        folder = Path(cfg.model.path or "").expanduser()
        return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None
    except UserError:  # a model of the hub, which is not downloaded for this
        return None

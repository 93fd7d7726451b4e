"""What one training stage is given, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hpc_llm.distributed import Ranks
from hpc_llm.settings import ScheduleSettings, StageSettings, TrainSettings, ZeroSettings
from hpc_llm.surgery.trainable import Trainable
from hpc_llm.training.batches import BatchPlan
from hpc_llm.training.checkpoint import Progress
from hpc_llm.training.shards import PackedReader

__all__ = ["Hooks", "StageJob", "TrainedStage"]


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """All that one training stage works with."""

    name: str
    trainable: Trainable
    reader: PackedReader
    plan: BatchPlan
    steps: int
    peak_rate: float
    stage: StageSettings
    train: TrainSettings
    zero: ZeroSettings
    schedule: ScheduleSettings
    ranks: Ranks
    seed: int
    folder: Path
    """Checkpoints lie here."""
    fingerprint: str
    """Checkpoints of another fingerprint are not gone on from."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the caller passes down: where figures go and who may stop the run."""

    log: Callable[[Progress, dict[str, float]], None]
    """Called on rank 0 every `log_steps` with the totals so far and metrics of the last steps."""
    resumed: Callable[[Progress], None]
    """Called on rank 0 when the stage goes on from a checkpoint."""
    step_flops: Callable[[int, int], int]
    """(tokens, sum of squared document lengths) of a step -> its model FLOPs."""
    stop_reason: Callable[[], str | None]
    """Asked at every step boundary."""
    saving: Callable[[Progress], None] = lambda progress: None
    """Called on rank 0 before a checkpoint of these totals is written."""
    over_budget: Callable[[Progress], str | None] = lambda progress: None
    """Asked on rank 0 at every step boundary: which limit is reached; None: go on."""
    measure: Callable[[], None] = lambda: None
    """Called on every rank before `log`: what the ranks measure together."""


@dataclass(frozen=True)
class TrainedStage:
    """The result of a stage: weights by their names in the plain model (rank 0), and totals."""

    progress: Progress
    weights: dict[str, torch.Tensor]
    adapters: dict[str, torch.Tensor]

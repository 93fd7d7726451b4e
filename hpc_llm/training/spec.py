"""Inputs and result of a training stage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hpc_llm.distributed import Layout, Place, Ranks
from hpc_llm.settings import (
    CheckpointSettings,
    GuardSettings,
    ScheduleSettings,
    StageSettings,
    TrainSettings,
    ZeroSettings,
)
from hpc_llm.surgery.trainable import Trainable
from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.data.mixture import Reader
from hpc_llm.training.forensics import StepRecord
from hpc_llm.training.guards import Anomaly
from hpc_llm.training.meter import Meter
from hpc_llm.training.progress import Progress
from hpc_llm.training.schedules import StageLength

__all__ = ["Branch", "Hooks", "StageSpec", "TrainedStage"]


@dataclass(frozen=True, kw_only=True)
class Branch:
    """The checkpoint from which a stage starts instead of a model: `from=STAGE@STEP`."""

    stage: str
    step: int
    path: Path
    fingerprint: str
    """Of that stage."""

    @property
    def point(self) -> str:
        """STAGE@STEP."""
        return f"{self.stage}@{self.step}"


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """Inputs of a training stage."""

    name: str
    trainable: Trainable
    reader: Reader
    plan: BatchPlan
    steps: int
    """Its number of steps; an estimate if tokens or FLOPs limit it."""
    length: StageLength
    """Its limits, and the completed fraction."""
    peak_rate: float
    """Peak learning rate."""
    stage: StageSettings
    train: TrainSettings
    zero: ZeroSettings
    schedule: ScheduleSettings
    checkpoint: CheckpointSettings
    guards: GuardSettings
    ranks: Ranks
    layout: Layout
    """Data, sequence and tensor parallelism over the ranks."""
    seed: int
    folder: Path
    """Folder of the checkpoints."""
    result: Path
    """Folder of the trained weights."""
    fingerprint: str
    """Training does not resume from checkpoints with another fingerprint."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings behind the fingerprint, as `stages.lora.rank`, to report what has changed."""
    branch: Branch | None = None
    """Where it starts, if it branches from another stage."""
    meter: Meter | None = None
    """Measures source text during the stage."""
    branch_steps: Sequence[int] = ()
    """Steps from which later stages branch: their checkpoints are kept."""

    @property
    def place(self) -> Place:
        """Where this rank is in the layout."""
        return self.layout.place(self.ranks.rank)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callbacks: where metrics are logged and what may stop the run."""

    log: Callable[[Progress, dict[str, float], list[StepRecord]], None]
    """Called on rank 0 every `log_steps`: totals so far, metrics and records of these steps."""
    resumed: Callable[[Progress], None]
    """Called on rank 0 when the stage resumes from a checkpoint."""
    step_flops: Callable[[int, int], int]
    """(tokens, sum of squared document lengths) of a step -> its model FLOPs."""
    stop_reason: Callable[[], str | None]
    """Called at every step boundary: the reason to stop; None: continue."""
    saving: Callable[[Progress], None] = lambda progress: None
    """Called on rank 0 before a checkpoint of these totals is written."""
    over_budget: Callable[[Progress], str | None] = lambda progress: None
    """Called on rank 0 at every step boundary: the limit reached; None: continue."""
    unsaved: Callable[[Progress], None] = lambda progress: None
    """Called on rank 0 when the disk is too full for the checkpoint of these totals."""
    anomaly: Callable[[Anomaly, StepRecord], None] = lambda anomaly, record: None
    """Called on rank 0 when a guard finds an anomaly, with the action taken."""
    stalled: Callable[[list[str]], None] = lambda names: None
    """Called on the rank that detects a stall, with the lagging ranks, before it exits."""
    straggling: Callable[[list[str], int], None] = lambda names, step: None
    """Called on rank 0 with the ranks that were slow in several log lines, and the step."""
    measure: Callable[[], None] = lambda: None
    """Called on every rank before `log`: collective measurements."""
    metered: Callable[[Progress, dict[str, float]], None] = lambda progress, metrics: None
    """Called on rank 0 with what the meter has measured."""


@dataclass(frozen=True)
class TrainedStage:
    """The result of a stage: totals, and on rank 0 the trained tensors by name."""

    progress: Progress
    weights: Mapping[str, torch.Tensor]
    """Weights by name in the plain model, read from the files of the stage on access."""
    adapters: dict[str, torch.Tensor]
    ended: str | None = None
    """Why it ended before its last step; None: it did not."""

"""Checkpoints: what is needed to go on from a step, by name, atomic, the newest two kept.

`step-00000120/state.safetensors` holds fp32 weights and moments of the trained parameters;
`state.json` beside it holds the step, counters and the fingerprint of the stage. The folder gets
its name only when both are on disk; one that cannot be read is passed over for the one before.
"""

import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hpc_llm.rundir import read_json, replaced_folder, write_json

__all__ = ["Progress", "Snapshot", "newest", "write_snapshot"]

KEPT = 2

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Counters of a stage, at the end of a step, over all ranks; integers where they count."""

    step: int = 0
    optimizer_step: float = 0.0
    tokens: int = 0
    """Tokens read, padding left out."""
    label_tokens: int = 0
    squared_lengths: int = 0
    """Sum of squared document lengths: what attention costs."""
    flops: int = 0
    seconds: float = 0.0
    """Wall time of the steps."""
    loss: float | None = None
    """Mean nats per label token since the last log line before the step."""


@dataclass(frozen=True)
class Snapshot:
    """One checkpoint as read."""

    progress: Progress
    tensors: dict[str, torch.Tensor]
    path: Path


def write_snapshot(
    folder: Path, progress: Progress, tensors: dict[str, torch.Tensor], fingerprint: str
) -> None:
    """Write a checkpoint below `folder` (rank 0 only) and drop all but the newest two."""
    with replaced_folder(folder / f"step-{progress.step:08d}") as temporary:
        save_file(tensors, temporary / "state.safetensors")
        with (temporary / "state.safetensors").open("rb") as handle:
            os.fsync(handle.fileno())
        write_json(temporary / "state.json", {**asdict(progress), "fingerprint": fingerprint})
    for old in _folders(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest(folder: Path, fingerprint: str) -> Snapshot | None:
    """Return the newest checkpoint that is whole and belongs to the same stage, or None."""
    for path in _folders(folder):
        try:
            state = read_json(path / "state.json")
            if state.pop("fingerprint") != fingerprint:
                continue
            tensors = load_file(path / "state.safetensors")
            return Snapshot(Progress(**state), tensors, path)
        except (OSError, SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
            log.warning("%s cannot be read (%s); trying the checkpoint before", path, error)
    return None

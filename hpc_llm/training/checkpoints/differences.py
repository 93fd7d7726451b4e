"""Differences between a checkpoint and a stage: settings, data, model. No torch here.

The weights depend on the settings in `CheckpointState.settings` and on the input files: a stage
cannot resume if these change. All other settings may change from one start to the next.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.training.checkpoints.marker import CheckpointState

__all__ = [
    "CONTENT",
    "as_json",
    "made_otherwise",
    "other_data",
    "other_model",
    "other_parameters",
    "other_settings",
]

MAY_CHANGE = (
    "ranks, zero, launch, hardware, checkpoint, guards, tracking, budget, "
    "train.micro_batch_tokens, log_steps, max_hours and threads may change"
)
SHOWN = 5
CONTENT = " (content)"


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in the form in which they are read back from a checkpoint."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return plain


def changed_settings(state: CheckpointState, settings: Mapping[str, Any]) -> list[str]:
    """Return `key: old -> new` for every differing setting on which the weights depend."""
    before, settings = state.settings, as_json(settings)
    keys = [k for k in sorted({*before, *settings}) if before.get(k) != settings.get(k)]
    return [
        f"{key.removesuffix(CONTENT)}: different content"
        if key.endswith(CONTENT)
        else f"{key}: {before.get(key)} -> {settings.get(key)}"
        for key in keys
    ]


def other_settings(
    path: Path, state: CheckpointState, stage: str, fingerprint: str, settings: Mapping[str, Any]
) -> UserError | None:
    """Return the error if a checkpoint is not of `stage` with these settings; None if it is."""
    if state.stage != stage:
        return UserError(
            str(path),
            None,
            f"is a checkpoint of the stage {state.stage}, not of {stage}",
            "remove it",
        )
    if state.fingerprint == fingerprint:
        return None
    changes = changed_settings(state, settings)
    differ = _some(changes) if changes else "other files, or another version of hpc-llm"
    return UserError(
        str(path),
        None,
        f"has other settings: {differ}",
        f"use the earlier ones to resume from step {state.progress.step}, or "
        f"checkpoint.changed=restart to train {stage} from scratch (the checkpoint is then kept in "
        f"superseded/); {MAY_CHANGE}",
    )


def other_parameters(state: CheckpointState, parameters: Mapping[str, str]) -> list[str]:
    """Return the differences in trained parameters to a checkpoint, by name and shape."""
    before = state.parameters
    keys = [*before, *(name for name in parameters if name not in before)]
    return [
        f"{key} is {before.get(key, 'missing')} in the checkpoint and "
        f"{parameters.get(key, 'missing')} in the model"
        for key in keys
        if before.get(key) != parameters.get(key)
    ]


def other_model(
    path: Path, state: CheckpointState, parameters: Mapping[str, str]
) -> UserError | None:
    """Return the error if a checkpoint is not of this model; None if it is."""
    differ = other_parameters(state, parameters)
    if not differ:
        return None
    return UserError(
        str(path),
        None,
        f"is a checkpoint of another model: {_some(differ)}",
        f"use the model it was made with, or remove {path.parent}",
    )


def other_data(path: Path, state: CheckpointState, data: Mapping[str, Any]) -> UserError | None:
    """Return the error if a checkpoint was made with another training text; None if not."""
    if state.data == data:
        return None
    return UserError(
        str(path),
        None,
        f"the training text has changed: {state.data} -> {dict(data)}",
        f"restore its shards as they were, or remove {path.parent} to train from scratch",
    )


def made_otherwise(state: CheckpointState, made_with: Mapping[str, Any]) -> str:
    """Return the changes in values that may change, as text; "" if there are none."""
    changes = [
        f"{key} {state.made_with.get(key)} -> {value}"
        for key, value in made_with.items()
        if state.made_with.get(key) != value
    ]
    return ", ".join(changes)


def _some(lines: list[str]) -> str:
    more = f", and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return ", ".join(lines[:SHOWN]) + more

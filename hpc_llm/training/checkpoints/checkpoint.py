"""A checkpoint: read, verified by checksum, compared with the stage that resumes. No torch here.

See `hpc_llm.training.checkpoints.folder` for its contents.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir.checksums import describe
from hpc_llm.training.checkpoints.differences import (
    made_otherwise,
    other_data,
    other_model,
    other_settings,
)
from hpc_llm.training.checkpoints.folder import step_and_attempt
from hpc_llm.training.checkpoints.marker import BadCheckpoint, CheckpointState, read_state
from hpc_llm.training.progress import Progress

__all__ = ["Checkpoint", "Expected"]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a stage requires of a checkpoint to resume from it."""

    stage: str
    fingerprint: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings behind the fingerprint, to report what differs."""
    parameters: Mapping[str, str] | None = None
    """Shapes of the trained parameters by name; None: not compared."""
    data: Callable[[Progress], Mapping[str, Any]] | None = None
    """The state of the reader at some progress; None: not compared."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """Ranks, ZeRO stage and similar values, which may differ."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint with a readable marker and files of the recorded sizes."""

    path: Path
    state: CheckpointState

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read the marker of a checkpoint and check that its files exist with the right sizes.

        Raises `BadCheckpoint` if it is incomplete or damaged, and `UserError` if it has another
        format.
        """
        state = read_state(path)
        if step_and_attempt(path)[0] not in (state.progress.step, -1):
            raise BadCheckpoint(f"is of step {state.progress.step}")
        for name, known in state.files.items():
            _check_size(path / name, name, known["bytes"])
        return cls(path, state)

    @property
    def progress(self) -> Progress:
        """The counters at the step of this checkpoint."""
        return self.state.progress

    def damage(
        self, share: slice = slice(None), files: Mapping[str, Mapping[str, Any]] | None = None
    ) -> str | None:
        """Verify the SHA-256 of its files; describe the first that differs, None if all match.

        `share` selects a subset, so that ranks can split the work. `files` replaces the list with
        other files in its folder, with their bytes and SHA-256.
        """
        known = self.state.files if files is None else files
        for name in sorted(known)[share]:
            try:
                found = describe(self.path / name)
            except OSError as error:
                return f"{name}: {error.strerror}"
            if found != known[name]:
                return f"{name} is corrupt (SHA-256 differs)"
        return None

    def mismatch(self, expected: Expected) -> UserError | None:
        """Return the error if it does not belong to the `expected` stage; None if it does."""
        path, state = self.path, self.state
        settings = expected.settings
        if error := other_settings(path, state, expected.stage, expected.fingerprint, settings):
            return error
        if expected.parameters is not None and (
            error := other_model(path, state, expected.parameters)
        ):
            return error
        if expected.data is not None:
            return other_data(path, state, expected.data(state.progress))
        return None

    def changes(self, expected: Expected) -> str:
        """Return the differences that are allowed, as text; "" if there are none."""
        return made_otherwise(self.state, expected.made_with)


def _check_size(file: Path, name: str, expected: int) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise BadCheckpoint(f"{name}: {error.strerror}") from error
    if size != expected:
        raise BadCheckpoint(f"{name} has {size:,} bytes, not {expected:,}")

"""The layout `sharded`: every rank writes its own partition with DeepSpeed's `save_checkpoint`.

For full training of models whose states do not fit into one host's memory. With the same number of
ranks and ZeRO stage, each rank reads its own files back and continues with the same bits; otherwise
the checkpoint is converted first (see `universal`).

Security: DeepSpeed's files are pickles, and loading a pickle can run arbitrary code. So they are
read only from the run folder, only if their SHA-256 matches `state.json`, and only with torch's
`weights_only`, which builds tensors, containers and the few classes in `ALLOWED` and rejects
everything else. Whoever can write to the run folder can change both files and hashes, but still
cannot execute code.
"""

import copy
import importlib
import os
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint
from hpc_llm.rundir.checksums import HashedFile
from hpc_llm.training.transfers import HostCopies

__all__ = ["FOLDER", "Capture", "division", "load_sharded", "only_weights", "write_sharded"]

FOLDER = "deepspeed"
ALLOWED = (
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)


@contextmanager
def only_weights() -> Iterator[None]:
    """Inside the block every `torch.load`, including DeepSpeed's, uses `weights_only`."""
    classes = []
    for path in ALLOWED:
        module, name = path.rsplit(".", 1)
        classes.append(getattr(importlib.import_module(module), name))
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # overrides weights_only=False in the call
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        with torch.serialization.safe_globals(classes):
            yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


class Capture:
    """A DeepSpeed checkpoint engine that copies the states, to be written later."""

    def __init__(self) -> None:
        """Start empty."""
        self._copies = HostCopies()
        self.taken: dict[str, Any] = {}

    def take(self, engine: Any) -> dict[str, Any]:
        """Return this rank's files as {name: content}; valid until the next call (collective)."""
        self.taken = {}
        engine.checkpoint_engine = self
        engine._copy_recovery_script = lambda path: None  # our own export reads by name
        engine.save_checkpoint(
            FOLDER, tag=FOLDER, client_state={}, save_latest=False, exclude_frozen_parameters=True
        )
        self._copies.wait()
        return self.taken

    def save(self, state_dict: Any, path: str) -> None:
        """Copy the content of a file into `taken`."""
        name = Path(path).name
        self.taken[name] = _copied(state_dict, self._copies, name)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read a file."""
        try:
            with only_weights():
                return torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                path,
                None,
                f"contains a pickle that is not allowed ({str(error).splitlines()[0]})",
                "remove it to resume from the checkpoint before it",
            ) from error

    def create(self, info: Any) -> None:
        """Start a checkpoint; nothing to do."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Create a folder; nothing to do, as nothing is written yet."""

    def commit(self, info: Any) -> bool:
        """Commit a checkpoint; nothing to do."""
        return True

    def is_data_parallel_writer(self, dp_rank: int) -> bool:
        """Return whether a rank writes the replicated states."""
        return dp_rank == 0

    def is_decoupled(self) -> bool:
        """Return whether DeepSpeed must wait for the engine at the end of a step."""
        return False

    def preserves_storage_sharing(self) -> bool:
        """Return whether tensors in a file may share storage: each is a separate copy."""
        return False


def _copied(value: Any, copies: HostCopies, key: str) -> Any:
    """Return a copy that training does not change."""
    if torch.is_tensor(value):
        return copies.copy(key, value)
    if isinstance(value, dict):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind((k, _copied(v, copies, f"{key}/{k}")) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(_copied(v, copies, f"{key}/{i}") for i, v in enumerate(value))
    return copy.deepcopy(value)


def write_sharded(folder: Path, contents: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write and sync this rank's files below `folder`; return bytes and SHA-256 by path."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, content in contents.items():
        with HashedFile(place / name) as file:  # torch's own writer blocks other threads
            torch.save(content, file)
        files[f"{FOLDER}/{name}"] = file.found
    return files


def load_sharded(engine: Any, path: Path) -> None:
    """Load this rank's files into an engine with the same sharding (collective)."""
    engine.checkpoint_engine = Capture()
    engine.load_checkpoint(
        str(path), tag=FOLDER, load_module_strict=False, load_lr_scheduler_states=False
    )


def division(engine: Any, *settings: Any) -> str:
    """Return the fingerprint of the sharding: states with an equal one can be loaded directly.

    It depends on the parameters of each group, in order, and on `settings`.
    """
    import deepspeed

    shapes = engine._get_zero_param_shapes()
    groups = [[[name, list(shape)] for name, shape in group.items()] for group in shapes]
    return fingerprint(deepspeed.__version__, groups, *settings)

"""The layout `whole`: one safetensors file with the trained parameters' states by name.

Written by rank 0 alone, so the states must fit into one host's memory: adapters, embeddings, models
of a few billion parameters. Training can resume from it at any ZeRO stage and number of ranks.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hpc_llm.rundir.checksums import HashedFile
from hpc_llm.surgery.shards import as_bytes, safetensors_header
from hpc_llm.training.checkpoints.marker import BadCheckpoint

__all__ = ["FILE", "WholeTensors", "write_tensors"]

FILE = "state.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Write and sync fp32 CPU tensors as safetensors; return the file's bytes and SHA-256.

    Writes in blocks, hashed on the fly, without blocking other threads: three times as fast as the
    library's own writer here, and a full disk raises an `OSError` with its errno.
    """
    with HashedFile(path) as file:
        file.write(safetensors_header(tensors, {}))
        for tensor in tensors.values():
            assert tensor.dtype == torch.float32
            file.write(as_bytes(tensor))
    return file.found


class WholeTensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by `kind/name`, each read from disk on access."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises `BadCheckpoint` if it cannot be read."""
        try:
            self._file = safe_open(path / FILE, framework="pt")
        except (OSError, SafetensorError) as error:
            raise BadCheckpoint(f"{FILE}: {error}") from error
        self._keys = list(self._file.keys())

    def __getitem__(self, key: str) -> torch.Tensor:
        """Read a tensor."""
        return self._file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self._keys)

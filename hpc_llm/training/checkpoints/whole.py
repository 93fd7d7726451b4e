"""The layout `whole`: one safetensors file with the trained parameters' states by name.

Written by rank 0 alone, so it suits what fits into one host's memory: adapters, embeddings, models
of a few billion parameters. It can be gone on from at any ZeRO stage and number of ranks.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from hpc_llm.training.checkpoints.checksums import HashedFile
from hpc_llm.training.checkpoints.folder import BadCheckpoint

__all__ = ["FILE", "WholeTensors", "write_tensors"]

FILE = "state.safetensors"


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Write fp32 CPU tensors as safetensors, synced; return the file's bytes and SHA-256.

    In blocks, hashed on the way, with other threads running all the while: three times as fast as
    the library's own writer here, and a full disk is an `OSError` with its number.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    with HashedFile(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            assert tensor.dtype == torch.float32
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return file.found


class WholeTensors(Mapping[str, torch.Tensor]):
    """The tensors of a checkpoint by `kind/name`, each read from the disk when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises `BadCheckpoint`."""
        try:
            self._file = safe_open(path / FILE, framework="pt")
        except (OSError, SafetensorError) as error:
            raise BadCheckpoint(f"{FILE}: {error}") from error
        self._keys = list(self._file.keys())

    def __getitem__(self, key: str) -> torch.Tensor:
        """Read a tensor."""
        return self._file.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        """Go through the keys."""
        return iter(self._keys)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self._keys)

"""Weights in safetensors shards of about 5 GB, written and read one tensor at a time.

A model larger than the memory of a host passes through: no function here holds more than the tensor
at hand. One shard is `STEM.safetensors`; several are `STEM-00001-of-0000N.safetensors` with
`STEM.safetensors.index.json`, as transformers writes and reads them.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.serialization import StateDictSplit, split_torch_state_dict_into_shards
from safetensors import safe_open

from hpc_llm.accounting.host_memory import SHARD_BYTES
from hpc_llm.rundir import read_json, readable, system_errors, write_json

__all__ = [
    "MODEL",
    "SHARD_BYTES",
    "WEIGHTS",
    "StoredWeights",
    "as_bytes",
    "safetensors_header",
    "split_weights",
    "weight_files",
    "write_index",
    "write_shard",
    "write_shards",
]

MODEL, WEIGHTS = "model", "weights"  # stems: of a model folder, of a training stage
SUFFIX = ".safetensors"

DTYPES = {
    "I64": torch.int64, "F64": torch.float64, "F32": torch.float32, "I32": torch.int32,
    "BF16": torch.bfloat16, "F16": torch.float16, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Number types by their names in safetensors, in the order in which it writes tensors."""
CODES = {dtype: code for code, dtype in DTYPES.items()}


def safetensors_header(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """Return what precedes the data of `tensors` (on any device) in a safetensors file."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        shape = list(tensor.shape)
        entry = {"dtype": CODES[tensor.dtype], "shape": shape, "data_offsets": [begin, end]}
        header[name] = entry
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # align the data to 8 bytes
    return len(text).to_bytes(8, "little") + text


def as_bytes(tensor: torch.Tensor) -> Any:
    """Return the numbers of a CPU tensor as a buffer, without a copy of a contiguous one."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def split_weights(
    shapes: Mapping[str, torch.Tensor], stem: str, most_bytes: int = SHARD_BYTES
) -> StateDictSplit:
    """Return which of the tensors go into which file, as transformers divides them.

    `shapes` has them in order, on any device (meta: nothing is read).
    """
    if not shapes:  # still a file: a reader finds no tensors instead of nothing
        return StateDictSplit({"total_size": 0}, {f"{stem}{SUFFIX}": []}, {})
    empty = {name: torch.empty_like(tensor, device="meta") for name, tensor in shapes.items()}
    pattern = f"{stem}{{suffix}}{SUFFIX}"
    return split_torch_state_dict_into_shards(
        empty, filename_pattern=pattern, max_shard_size=most_bytes
    )


def write_shard(
    path: Path, shapes: Mapping[str, torch.Tensor], tensor_of: Callable[[str], torch.Tensor]
) -> None:
    """Write and sync one file; `tensor_of` gives each tensor, of shape and type as in `shapes`.

    The bytes are those of `safetensors.torch.save_file`. Raises `OSError` for a full disk.
    """
    order = list(CODES)
    names = sorted(shapes, key=lambda name: (order.index(shapes[name].dtype), name))
    with system_errors(path), path.open("wb") as file:
        file.write(safetensors_header({name: shapes[name] for name in names}, {"format": "pt"}))
        for name in names:
            tensor = tensor_of(name)
            found, wanted = ((one.shape, one.dtype) for one in (tensor, shapes[name]))
            assert found == wanted, (name, found, wanted)
            file.write(as_bytes(tensor.cpu()))
            del tensor  # before the next one is made
        file.flush()
        os.fsync(file.fileno())


def write_index(folder: Path, stem: str, split: StateDictSplit) -> None:
    """Write the index of several shards; one shard has none."""
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / f"{stem}{SUFFIX}.index.json", index)


def write_shards(
    folder: Path,
    stem: str,
    shapes: Mapping[str, torch.Tensor],
    tensor_of: Callable[[str], torch.Tensor],
    most_bytes: int = SHARD_BYTES,
) -> None:
    """Write all tensors of `shapes` into `folder`, one at a time (see `write_shard`)."""
    split = split_weights(shapes, stem, most_bytes)
    for file, names in split.filename_to_tensors.items():
        write_shard(folder / file, {name: shapes[name] for name in names}, tensor_of)
    write_index(folder, stem, split)


def weight_files(folder: Path, stem: str) -> list[Path]:
    """Return the files of `stem` in `folder`: shards and index."""
    names = (f"{stem}{SUFFIX}", f"{stem}-*-of-*{SUFFIX}", f"{stem}{SUFFIX}.index.json")
    return sorted(path for name in names for path in folder.glob(name))


class StoredWeights(Mapping[str, torch.Tensor]):
    """The tensors in the shards of a folder by name, each read from disk on access.

    They are memory-mapped: processes of a host share the pages, and the kernel can drop them.
    """

    def __init__(self, folder: Path, stem: str = WEIGHTS) -> None:
        """Open the index, or the only file; raises `UserError` if it cannot be read."""
        self._folder = folder
        self._open: dict[str, Any] = {}
        index, single = folder / f"{stem}{SUFFIX}.index.json", f"{stem}{SUFFIX}"
        if index.is_file() and not (folder / single).is_file():
            with readable(index):
                self._files = dict(read_json(index)["weight_map"])
        else:
            with readable(folder / single):
                self._files = dict.fromkeys(self._file(single).keys(), single)

    def _file(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = safe_open(self._folder / name, "pt")
        return self._open[name]

    def __getitem__(self, name: str) -> torch.Tensor:
        """Read a tensor."""
        file = self._files[name]
        with readable(self._folder / file):
            tensor: torch.Tensor = self._file(file).get_tensor(name)
            return tensor

    def empty(self, name: str) -> torch.Tensor:
        """Return a tensor of the same shape and type on the meta device."""
        file = self._files[name]
        with readable(self._folder / file):
            part = self._file(file).get_slice(name)
            return torch.empty(part.get_shape(), dtype=DTYPES[part.get_dtype()], device="meta")

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, sorted."""
        return iter(sorted(self._files))

    def __len__(self) -> int:
        """Count the tensors."""
        return len(self._files)

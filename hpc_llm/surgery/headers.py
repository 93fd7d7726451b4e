"""Headers of safetensors files: names, types and shapes of their tensors, each read once."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from hpc_llm.errors import UserError

__all__ = ["tensors_of"]

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
FILES = 4096  # of which headers are kept
FIX = "download it again, or convert the weights to safetensors"


def tensors_of(file: Path) -> Tensors:
    """Return type (F32, BF16, ...) and shape of the tensors of a safetensors file, by name.

    Raises `UserError` for a file that is none, or that is cut off. A file is read again after it
    has changed.
    """
    found = file.stat()
    return _tensors(file.absolute(), (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=FILES)
def _tensors(file: Path, version: tuple[int, ...]) -> Tensors:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as tensors:
            parts = ((name, tensors.get_slice(name)) for name in tensors.keys())  # noqa: SIM118
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts}
    except SafetensorError as error:
        rule = f"is no complete safetensors file ({' '.join(str(error).split())})"
        with file.open("rb") as handle:
            if handle.read(2).startswith((b"PK", b"\x80")):  # may also begin a header's length
                rule = "is a pickle under the name of a safetensors file; pickles are not loaded"
        raise UserError(str(file), None, rule, FIX) from error

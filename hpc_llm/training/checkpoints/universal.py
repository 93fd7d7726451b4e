"""Load a sharded checkpoint on another number of ranks through DeepSpeed's universal checkpoint.

DeepSpeed's converter (Lian et al. 2024, arXiv 2406.18820) merges the partitions into one file per
parameter and state. They are read by our names and set like those of the layout `whole`, so the
ZeRO stage may change too, which DeepSpeed's own loader does not support (0.19.8: from stage 2 to 3
it finds no files). Rank 0 converts in a separate process, without a device and without running code
from pickles, and keeps the result beside the checkpoint.

    python -P -m hpc_llm.training.checkpoints.universal FOLDER RESULT
"""

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from hpc_llm.distributed import child_environment, python_module
from hpc_llm.errors import UserError
from hpc_llm.rundir import read_json, write_json
from hpc_llm.rundir.checksums import describe, sealed, unsealed
from hpc_llm.training.checkpoints.sharded import FOLDER, only_weights

__all__ = ["UniversalTensors", "convert", "converted_files", "drop_converted"]

UNIVERSAL = "universal"
MARKER = "files.json"
KINDS = {"weight": "fp32", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
WORKERS = 4
COPIES = 2.2  # of the states on disk during conversion: fragments, and the result


def convert(path: Path) -> None:
    """Convert the checkpoint in `path` unless already done (rank 0 only).

    Raises `UserError` if the disk is too full, or if DeepSpeed cannot convert it.
    """
    result = path / UNIVERSAL
    if converted_files(path):
        return
    drop_converted(path)
    _check_room(path)
    temporary = path / f".{UNIVERSAL}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()  # fails on a link
    converted = temporary / UNIVERSAL  # DeepSpeed writes a file beside it too
    done = _in_child(path / FOLDER, converted)
    if done.returncode:
        shutil.rmtree(temporary, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(
            str(path),
            None,
            f"DeepSpeed cannot convert it for another number of ranks ({last})",
            "resume with the number of ranks and the ZeRO stage it was made with",
        )
    files = {str(f.relative_to(converted)): describe(f) for f in converted.rglob("*.pt")}
    write_json(converted / MARKER, sealed(files))
    converted.rename(result)
    shutil.rmtree(temporary)


def _in_child(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Convert in a process of its own, in an empty folder: nothing that lies there is imported."""
    module = python_module("hpc_llm.training.checkpoints.universal")
    command = [*module, str(source.absolute()), str(target.absolute())]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment = {**child_environment(os.environ), **hidden}
    with TemporaryDirectory() as empty:
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)


def _check_room(path: Path) -> None:
    size = sum(file.stat().st_size for file in (path / FOLDER).iterdir())
    free = shutil.disk_usage(path).free
    if free < COPIES * size:
        raise UserError(
            str(path),
            None,
            "conversion for another number of ranks takes "
            f"{COPIES * size / 2**30:.1f} GiB there, and {free / 2**30:.1f} GiB are free",
            "free space, or resume with the same number of ranks",
        )


def converted_files(path: Path) -> dict[str, dict[str, Any]]:
    """Return bytes and SHA-256 of the converted files by path relative to `path`.

    {} if it is not converted, or if the list of the files is damaged.
    """
    try:
        known = unsealed(read_json(path / UNIVERSAL / MARKER), required=True) or {}
    except (OSError, UserError, AttributeError):
        return {}
    return {f"{UNIVERSAL}/{name}": one for name, one in known.items()}


def drop_converted(path: Path) -> None:
    """Remove the converted files of the checkpoint in `path`, which has what they were made of."""
    shutil.rmtree(path / UNIVERSAL, ignore_errors=True)


class UniversalTensors(Mapping[str, torch.Tensor]):
    """The tensors of a converted checkpoint by `kind/name`, read on access."""

    def __init__(self, path: Path, names: Mapping[str, str]) -> None:
        """Read below `path`; `names` maps to DeepSpeed's parameter names."""
        self._folder, self._names = path / UNIVERSAL / "zero", names

    def __getitem__(self, key: str) -> torch.Tensor:
        """Read a tensor: flat under ZeRO-3, else in its shape."""
        kind, name = key.split("/", 1)
        file = self._folder / self._names[name] / f"{KINDS[kind]}.pt"
        with only_weights():
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return found["param"] if isinstance(found, dict) else found

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return (f"{kind}/{name}" for kind in KINDS for name in self._names)

    def __len__(self) -> int:
        """Count the tensors."""
        return len(KINDS) * len(self._names)


def _main(source: str, target: str) -> None:
    from deepspeed.checkpoint import ds_to_universal

    workers = min(WORKERS, len(os.sched_getaffinity(0)))
    arguments = Namespace(
        input_folder=source,
        output_folder=target,
        num_extract_workers=workers,
        num_merge_workers=workers,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,  # stages 1 and 2 expect a version that only Megatron writes
    )
    with only_weights():
        ds_to_universal.main(arguments)
    for copied in Path(target).glob("*_states.pt"):  # copies of the checkpoint's own files
        copied.unlink()


if __name__ == "__main__":
    _main(*sys.argv[1:])

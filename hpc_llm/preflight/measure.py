"""Local measurements of one rank: device, memory, matrix products, disks."""

import importlib.util
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from hpc_llm.accounting import find_device
from hpc_llm.distributed import Ranks
from hpc_llm.preflight.metrics import RankFigures
from hpc_llm.settings import RunConfig

__all__ = ["device_of", "host_name", "measure_rank"]

GPU_SIZE = 8192  # of square matrices: large enough for the peak of an H100
CPU_SIZE = 1024
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
GIB = 2**30


def host_name(environment: Mapping[str, str]) -> str:
    """Return Slurm's name of this node, else the host name."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]


def device_of(ranks: Ranks) -> torch.device:
    """Return this rank's device."""
    if torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def measure_rank(cfg: RunConfig, ranks: Ranks, environment: Mapping[str, str]) -> RankFigures:
    """Measure this rank's device and node; failures are reported in `error`."""
    gpu = torch.cuda.is_available()
    known = RankFigures(
        rank=ranks.rank,
        host=host_name(environment),
        device=torch.cuda.get_device_name(device_of(ranks)) if gpu else cfg.hardware.name,
        devices=_devices(cfg),
        devices_expected=_expected(cfg, ranks),
        mpi=_by_mpi(ranks, environment) and importlib.util.find_spec("mpi4py") is not None,
    )
    try:
        known = replace(
            known,
            free_gib=_free_gib(device_of(ranks)),
            run_gib=_disk_gib(cfg.folder),
            tmp_gib=_disk_gib(Path(tempfile.gettempdir())),
        )
        if not gpu and cfg.hardware.kind == "gpu":
            return known  # `devices` is 0
        rate, peak = _multiplied(cfg, device_of(ranks))
        return replace(known, flops_per_second=rate, peak_flops_per_second=peak)
    except (OSError, RuntimeError) as error:  # CUDA errors are RuntimeErrors
        return replace(known, error=" ".join(str(error).split())[:300])


def _devices(cfg: RunConfig) -> int:
    """Return the number of GPUs, or of cores if the configured hardware is a CPU."""
    if torch.cuda.is_available() or cfg.hardware.kind == "gpu":
        return torch.cuda.device_count()
    return os.cpu_count() or 1


def _expected(cfg: RunConfig, ranks: Ranks) -> int:
    """Return the expected devices per node: as configured, and at least one GPU per rank."""
    if torch.cuda.is_available() or cfg.hardware.kind == "gpu":
        return max(cfg.cluster.devices_per_node, ranks.local_world_size)
    return cfg.cluster.devices_per_node


def _by_mpi(ranks: Ranks, environment: Mapping[str, str]) -> bool:
    """Return whether MPI launched this rank: mpirun, or srun --mpi=pmix.

    Otherwise MPI_Init may end the process instead of failing.
    """
    return ranks.launcher == "mpi" or (ranks.launcher == "slurm" and "PMIX_RANK" in environment)


def _free_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / GIB
    return psutil.virtual_memory().available / GIB


def _disk_gib(path: Path) -> float:
    """Return the free space of the file system of `path`, or of its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free / GIB


def _multiplied(cfg: RunConfig, device: torch.device) -> tuple[float, float | None]:
    """Multiply square matrices for `preflight.seconds`; return FLOP/s and the catalogue's peak.

    The rate is the average over the whole time, to detect thermal throttling.
    """
    if device.type != "cuda":
        return _rate(device, "fp32", cfg.preflight.seconds), None
    entry = find_device(torch.cuda.get_device_name(device)) or cfg.hardware
    precision = cfg.train.precision if cfg.train.precision in entry.peak_tflops else entry.precision
    peak = entry.peak_tflops.get(precision) if entry.kind == "gpu" else None
    rate = _rate(device, precision, cfg.preflight.seconds)
    return rate, None if peak is None else peak * 1e12


def _rate(device: torch.device, precision: str, seconds: float) -> float:
    size = GPU_SIZE if device.type == "cuda" else CPU_SIZE
    left, right = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in "ab")
    product = left @ right  # loads the library
    _finish(device)
    count, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        torch.mm(left, right, out=product)
        _finish(device)
        count += 1
    return count * 2 * size**3 / passed


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

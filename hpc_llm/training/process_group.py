"""The process group: one call starts torch.distributed and DeepSpeed for this rank.

DeepSpeed compiles a small shared-memory extension the first time it runs on a CPU (about half a
minute); the build is cached in the virtual environment, so each environment compiles once.
"""

import contextlib
import fcntl
import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch

from hpc_llm.distributed import Ranks, check_visible_devices, export
from hpc_llm.errors import FirstRankFailed, RankFailed, UserError, exit_code
from hpc_llm.rundir import open_regular

__all__ = [
    "agreed",
    "all_max_float",
    "all_sum",
    "all_sum_float",
    "all_texts",
    "all_values",
    "barrier",
    "broadcast_status",
    "device_name",
    "device_of",
    "device_uuid",
    "end",
    "on_every_rank",
    "on_first_rank",
    "place",
    "quiet",
    "start",
]

Result = TypeVar("Result")

WAIT = timedelta(hours=48)  # the other ranks wait while rank 0 cleans, counts and encodes text

_control: list[torch.distributed.ProcessGroup] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Capture DeepSpeed's output; print it only if the block fails."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    kept = io.StringIO()
    try:
        with contextlib.redirect_stdout(kept), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BaseException:
        sys.stderr.write(kept.getvalue())
        raise


def _prepare_environment(ranks: Ranks) -> None:
    for key, value in export(ranks).items():
        os.environ[key] = value
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    extensions = Path(sys.prefix) / "torch_extensions"
    if os.access(sys.prefix, os.W_OK):
        os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(extensions))
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):  # for ninja
        os.environ["PATH"] = scripts + os.pathsep + os.environ.get("PATH", "")
    if not torch.cuda.is_available() and not (shutil.which("g++") or shutil.which("c++")):
        raise UserError(
            "PATH", None, "has no C++ compiler (g++), which DeepSpeed needs on a CPU", "install g++"
        )


def start(ranks: Ranks, threads: int | None) -> None:
    """Initialise the process group of this rank; a second call does nothing."""
    if torch.distributed.is_initialized():
        return
    _prepare_environment(ranks)
    # DeepSpeed uses deprecated names of collectives: every rank would warn at each stage
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    if threads:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        check_visible_devices(ranks, os.environ)
    with quiet():
        import deepspeed

        if not torch.cuda.is_available():
            _compile_once()

        if ranks.world_size == 1:  # needs no port
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group(_backend(), store=store, rank=0, world_size=1)
        deepspeed.init_distributed(_backend(), auto_mpi_discovery=False, timeout=WAIT)
        if not torch.cuda.is_available():
            _allow_fp16()
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank % torch.cuda.device_count())
    if ranks.world_size > 1:
        _control.append(torch.distributed.new_group(backend="gloo", timeout=WAIT))


def end() -> None:
    """Destroy the process group cleanly at the end of a successful run.

    A process that exits while gloo's threads are running may abort instead of returning its exit
    code. Not called after a failure: the other ranks may never reach the barrier.
    """
    if _control:  # a single rank has no peers and keeps its group
        barrier()
        _control.clear()
        torch.distributed.destroy_process_group()


def _allow_fp16() -> None:
    """Allow DeepSpeed to train in fp16 on any CPU.

    It requires fp16 instructions, which few CPUs have; without them torch computes in fp32 and
    rounds. This lets you try a configuration for GPUs without bf16 on a machine without a GPU.
    """
    from deepspeed.accelerator import get_accelerator

    get_accelerator().is_fp16_supported = lambda: True


def _compile_once() -> None:
    """Compile and load DeepSpeed's CPU extension, one process per machine at a time.

    torch marks a running build with a file `lock`. If the build is killed, the file remains and
    every later start waits for it. Under our own lock, which is released when its process ends,
    such a file can only be stale.
    """
    from deepspeed.comm.torch import build_shm_op
    from torch.utils.cpp_extension import get_default_build_root

    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".hpc_llm.lock"
    with open(open_regular(lock, os.O_RDWR | os.O_CREAT), "r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for stale in folder.glob("**/lock"):
            stale.unlink(missing_ok=True)
        build_shm_op()


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def device_of() -> torch.device:
    """Return the device of this rank."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def device_name() -> str | None:
    """Return the driver's name of this rank's GPU; None on a CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def device_uuid() -> str | None:
    """Return the UUID of this rank's GPU; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_properties(device_of()).uuid)


def place() -> tuple[int, int]:
    """Return this rank and the number of ranks; (0, 1) where there is one or no process group."""
    if not _control:
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def all_sum(values: list[int]) -> list[int]:
    """Return the sums of integers over all ranks (collective)."""
    if not _control:
        return values
    tensor = torch.tensor(values, dtype=torch.int64)
    torch.distributed.all_reduce(tensor, group=_control[0])
    return tensor.tolist()


def all_sum_float(value: float) -> float:
    """Return the sum of a float over all ranks (collective)."""
    if not _control:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    torch.distributed.all_reduce(tensor, group=_control[0])
    return float(tensor[0])


def all_max_float(value: float) -> float:
    """Return the maximum of a float over all ranks (collective)."""
    if not _control:
        return value
    tensor = torch.tensor([value], dtype=torch.float64)
    torch.distributed.all_reduce(tensor, torch.distributed.ReduceOp.MAX, group=_control[0])
    return float(tensor[0])


def all_values(value: float) -> list[float]:
    """Gather a float from every rank, in rank order (collective)."""
    if not _control:
        return [value]
    own = torch.tensor([value], dtype=torch.float64)
    every = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(every, own, group=_control[0])
    return [float(one[0]) for one in every]


def all_texts(text: str) -> list[str]:
    """Gather a string from every rank, in rank order (collective)."""
    if not _control:
        return [text]
    every: list[str | None] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, text, group=_control[0])
    return [str(one) for one in every]


def barrier() -> None:
    """Wait for all ranks."""
    all_sum([0])


def broadcast_status(status: int) -> int:
    """Return rank 0's `status` on every rank."""
    if not _control:
        return status
    tensor = torch.tensor([status], dtype=torch.int64)
    torch.distributed.broadcast(tensor, 0, group=_control[0])
    return int(tensor[0])


def on_first_rank(work: Callable[[], Result]) -> Result:
    """Run `work` on rank 0 while the others wait; return its result on every rank (collective).

    The result is broadcast as a pickle, so it must be small. If `work` fails, its error is raised
    on rank 0 and `FirstRankFailed` on the others.
    """
    if not _control:
        return work()
    outcome: list[Any] = [None]
    failure: Exception | None = None
    if torch.distributed.get_rank() == 0:
        try:
            outcome = [(0, work())]
        except Exception as error:  # broadcast to the other ranks, then re-raised
            failure = error
            outcome = [(exit_code(error), None)]
    torch.distributed.broadcast_object_list(outcome, 0, group=_control[0])
    if failure is not None:
        raise failure
    code, result = outcome[0]
    if code:
        raise FirstRankFailed(code)
    return result


def on_every_rank(work: Callable[[], Result]) -> list[Result]:
    """Run `work` on every rank; return the results of all, in rank order (collective).

    Results are gathered as pickles, so they must be small, and `work` must not be collective. If it
    fails, the lowest rank on which it does raises its error, and the others `RankFailed`.
    """
    if not _control:
        return [work()]
    own: tuple[int, Any] = (0, None)
    failure: Exception | None = None
    try:
        own = (0, work())
    except Exception as error:  # its code is gathered, then one rank re-raises it
        failure = error
        own = (exit_code(error), None)
    every: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, own, group=_control[0])
    failed = next((rank for rank, (code, _) in enumerate(every) if code), None)
    if failed is None:
        return [result for _, result in every]
    if failure is not None and failed == torch.distributed.get_rank():
        raise failure
    raise RankFailed(failed, every[failed][0])


def agreed(work: Callable[[], Result]) -> Result:
    """Run `work` on every rank and return this rank's result; errors as in `on_every_rank`."""
    found: list[Result] = []
    on_every_rank(lambda: found.append(work()))
    return found[0]

"""Detect rank and world size of this process from the environment variables of its launcher.

`srun hpc-llm train`, `mpirun hpc-llm train`, `torchrun` and a plain call are distinguished without
importing torch or mpi4py. Launchers are checked in this order:

1. torchrun and similar launchers (RANK, WORLD_SIZE, LOCAL_RANK);
2. mpirun. Before Slurm, because inside an allocation mpirun starts its helpers with srun: its
   ranks then inherit SLURM_STEP_ID and SLURM_PROCID of the helpers;
3. a step of srun. In the shell of `sbatch` or `salloc` a plain call is one rank, although Slurm
   sets SLURM_PROCID there;
4. none: a single rank.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from hpc_llm.distributed.hostlist import expand_hostlist, expand_tasks_per_node
from hpc_llm.errors import UserError

__all__ = ["Ranks", "check_visible_devices", "detect_ranks", "export"]

# Ports of a job: below Linux's ephemeral range, which begins at 32768 (ip_local_port_range), so
# that no outgoing connection holds the port before the rendezvous.
FIRST_PORT, PORTS = 10_000, 20_000
# Primes that separate the ports of a requeued job from its terminating earlier start, and those of
# the steps of a job from each other, without colliding with the next job id
RESTART_STRIDE, STEP_STRIDE = 7_919, 6_007
# slurm.h counts down from 0xfffffffd for steps other than those of srun: SLURM_EXTERN_CONT,
# SLURM_BATCH_SCRIPT, SLURM_INTERACTIVE_STEP (the shell of salloc)
FIRST_SPECIAL_STEP = 0xFFFFFFF0

# Variables of MPI launchers for rank, size, local rank, local size
OPEN_MPI = (
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
HYDRA = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")  # MPICH, Intel MPI
PALS = ("PMI_RANK", "PMI_SIZE", "PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")  # HPE Cray with PBS


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Position of this process among all processes of a run."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """Rank on this node; also the index of its GPU."""
    local_world_size: int = 1
    """Ranks on this node."""
    master_address: str = "127.0.0.1"
    """Node of rank 0."""
    master_port: int = 0
    """Port on which rank 0 listens; 0 (a single rank): any free port."""
    launcher: str = "none"
    """none, slurm, mpi or torchrun."""
    job_id: str | None = None
    """The scheduler's job id; each task of a Slurm array has its own."""
    restart_count: int = 0
    """Number of times Slurm has requeued the job."""

    def __post_init__(self) -> None:
        """Raise `UserError` for inconsistent values."""
        if not 0 <= self.rank < self.world_size:
            raise _stale("rank", self.rank, f"must be below world_size={self.world_size}")
        if not 0 <= self.local_rank < self.local_world_size:
            rule = f"must be below local_world_size={self.local_world_size}"
            raise _stale("local_rank", self.local_rank, rule)
        if self.local_world_size > self.world_size:
            rule = f"must be at most world_size={self.world_size}"
            raise _stale("local_world_size", self.local_world_size, rule)
        if not min(1, self.world_size - 1) <= self.master_port < 2**16:
            raise UserError("MASTER_PORT", self.master_port, "must be from 1 to 65535")

    @property
    def is_first(self) -> bool:
        """True for rank 0, which alone writes shared files."""
        return self.rank == 0


def detect_ranks(environment: Mapping[str, str]) -> Ranks:
    """Return the ranks of this process, from the environment variables of its launcher.

    `environment` is `os.environ`, and is not changed. With several ranks, MASTER_ADDR and
    MASTER_PORT override the derived rendezvous. Raises `UserError` if variables are inconsistent.
    """
    ranks = (
        _from_torchrun(environment)
        or _from_mpi(environment, OPEN_MPI)
        or _from_mpi(environment, HYDRA)
        or _from_slurm(environment)
        or _from_mpi(environment, PALS)
    )
    if ranks is not None:
        _check_one_launcher(environment, ranks)
        return ranks
    for name, alone in (("PMIX_RANK", 0), ("PMI_SIZE", 1)):
        if (value := _integer(environment, name, alone)) > alone:
            raise UserError(
                name,
                value,
                "set by an unknown MPI launcher",
                "start with srun or mpirun, or set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, "
                "MASTER_ADDR and MASTER_PORT",
            )
    return Ranks(job_id=_job_id(environment), restart_count=_restart_count(environment))


def export(ranks: Ranks) -> dict[str, str]:
    """Return the variables that torch and DeepSpeed read; the caller updates `os.environ`."""
    return {
        "RANK": str(ranks.rank),
        "WORLD_SIZE": str(ranks.world_size),
        "LOCAL_RANK": str(ranks.local_rank),
        "LOCAL_WORLD_SIZE": str(ranks.local_world_size),
        "MASTER_ADDR": ranks.master_address,
        "MASTER_PORT": str(ranks.master_port),
    }


def check_visible_devices(ranks: Ranks, environment: Mapping[str, str]) -> None:
    """Raise `UserError` if CUDA_VISIBLE_DEVICES has fewer GPUs than the node has ranks.

    Slurm's --gpus-per-task causes this: each task sees one GPU, but torch and DeepSpeed use the GPU
    with index LOCAL_RANK. Call it only if GPUs are used.
    """
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return
    devices = [device for device in value.split(",") if device.strip()]
    if len(devices) < ranks.local_world_size:
        raise UserError(
            "CUDA_VISIBLE_DEVICES",
            value,
            f"{len(devices)} GPUs for {ranks.local_world_size} ranks on the node",
            "use --gpus-per-node and one task per GPU (not --gpus-per-task)",
        )


def _from_torchrun(environment: Mapping[str, str]) -> Ranks | None:
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    rank, size = _integer(environment, "RANK"), _integer(environment, "WORLD_SIZE")
    _check_same_task(environment, rank, size)
    # A single rank does not need the local variables
    local_rank = _integer(environment, "LOCAL_RANK", 0 if size == 1 else None)
    local_size = _integer(environment, "LOCAL_WORLD_SIZE", 1 if size == 1 else None)
    return _ranks(environment, "torchrun", (rank, size, local_rank, local_size))


def _check_same_task(environment: Mapping[str, str], rank: int, size: int) -> None:
    """Raise `UserError` if RANK and WORLD_SIZE were set before srun to one value for all tasks."""
    if "TORCHELASTIC_RUN_ID" in environment or not _in_step(environment):
        return
    task = _integer(environment, "SLURM_PROCID")
    tasks = _integer(environment, "SLURM_STEP_NUM_TASKS", 1)
    if tasks > 1 and (rank, size) != (task, tasks):
        raise UserError(
            "RANK",
            rank,
            f"contradicts srun: this is task {task} of {tasks} (WORLD_SIZE={size})",
            "unset RANK and WORLD_SIZE",
        )


def _check_one_launcher(environment: Mapping[str, str], ranks: Ranks) -> None:
    """Raise `UserError` if several tasks of srun on a node have each started a launcher."""
    if not _in_step(environment):
        return
    task = tuple(_integer(environment, name, 0) for name in ("SLURM_PROCID", "SLURM_LOCALID"))
    tasks = _integer(environment, "SLURM_STEP_NUM_TASKS", 1)
    counts = expand_tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    here = max(counts[_integer(environment, "SLURM_NODEID", 0) :][:1], default=1)
    by_srun = ranks.world_size == tasks and (ranks.rank, ranks.local_rank) == task
    if here > 1 and not by_srun and ranks.world_size != tasks * ranks.local_world_size:
        launcher = "mpirun" if ranks.launcher == "mpi" else "torchrun"
        raise UserError(
            "srun",
            None,
            f"has {here} tasks on a node that each started {launcher}, which starts all "
            f"{ranks.local_world_size} ranks of a node itself",
            f"use srun --ntasks-per-node=1, or srun without {launcher}",
        )


def _from_mpi(environment: Mapping[str, str], names: tuple[str, str, str, str]) -> Ranks | None:
    if any(name not in environment for name in names):
        return None
    rank, size, local_rank, local_size = (_integer(environment, name) for name in names)
    return _ranks(environment, "mpi", (rank, size, local_rank, local_size))


def _from_slurm(environment: Mapping[str, str]) -> Ranks | None:
    if not _in_step(environment):
        return None
    counts = expand_tasks_per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    node = _integer(environment, "SLURM_NODEID")
    if node >= len(counts):
        rule = f"must be below {len(counts)}, the nodes of SLURM_STEP_TASKS_PER_NODE"
        raise _stale("SLURM_NODEID", node, rule)
    place = (
        _integer(environment, "SLURM_PROCID"),
        _integer(environment, "SLURM_STEP_NUM_TASKS"),
        _integer(environment, "SLURM_LOCALID"),
        counts[node],
    )
    return _ranks(environment, "slurm", place)


def _in_step(environment: Mapping[str, str]) -> bool:
    """Return whether this process is a task of srun, not the shell of sbatch or salloc."""
    step = _integer(environment, "SLURM_STEP_ID", FIRST_SPECIAL_STEP)
    return step < FIRST_SPECIAL_STEP and "SLURM_PROCID" in environment


def _ranks(
    environment: Mapping[str, str], launcher: str, place: tuple[int, int, int, int]
) -> Ranks:
    """Add the rendezvous to (rank, size, local rank, local size)."""
    rank, size, local_rank, local_size = place
    address, port = "127.0.0.1", 0
    if size > 1:
        address = _address(environment, launcher, one_node=local_size == size)
        port = _integer(environment, "MASTER_PORT", _port(environment, launcher))
    return Ranks(
        rank=rank,
        world_size=size,
        local_rank=local_rank,
        local_world_size=local_size,
        master_address=address,
        master_port=port,
        launcher=launcher,
        job_id=_job_id(environment),
        restart_count=_restart_count(environment),
    )


def _address(environment: Mapping[str, str], launcher: str, *, one_node: bool) -> str:
    """Return the node of rank 0: MASTER_ADDR, this machine, or the first node of Slurm's list."""
    if environment.get("MASTER_ADDR"):
        return environment["MASTER_ADDR"]
    if one_node:
        return "127.0.0.1"
    nodes = environment.get("SLURM_JOB_NODELIST", "")
    if launcher == "slurm":  # ranks of mpirun may inherit the step of a helper
        nodes = environment.get("SLURM_STEP_NODELIST", nodes)
    if not nodes:
        raise UserError(
            "MASTER_ADDR",
            None,
            "not set, and there are several nodes",
            "set it to the node of rank 0; for Open MPI: `mpirun -x MASTER_ADDR=$(hostname) ...`",
        )
    return expand_hostlist(nodes)[0]


def _port(environment: Mapping[str, str], launcher: str) -> int:
    """Return the port of a run: equal on all ranks, and rarely that of another run."""
    name = _job_id(environment) or environment.get("PMIX_NAMESPACE", "")
    number = int(name) if name.isdigit() else zlib.crc32(name.encode())
    number += RESTART_STRIDE * _restart_count(environment)
    if launcher == "slurm":
        number += STEP_STRIDE * _integer(environment, "SLURM_STEP_ID")
    return FIRST_PORT + number % PORTS


def _job_id(environment: Mapping[str, str]) -> str | None:
    return environment.get("SLURM_JOB_ID") or environment.get("PBS_JOBID")


def _restart_count(environment: Mapping[str, str]) -> int:
    return _integer(environment, "SLURM_RESTART_COUNT", 0)


def _integer(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """Return a variable as an integer, or `default` if unset. Raises `UserError`."""
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None:
        fix = "start the ranks with one launcher"
        raise UserError(name, None, "not set, but related variables are", fix)
    try:
        return int(text)
    except ValueError:
        raise UserError(name, text, "must be an integer", "unset it") from None


def _stale(key: str, value: int, rule: str) -> UserError:
    fix = (
        "unset RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE and other variables of an earlier "
        "launcher, and start the ranks with one of srun, mpirun or torchrun"
    )
    return UserError(key, value, rule, fix)

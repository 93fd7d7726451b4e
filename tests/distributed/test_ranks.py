"""Ranks from the environments of each starter; tests/slurm asks the real ones."""

import pytest
from errors import user_error

from hpc_llm.distributed import Ranks, check_visible_devices, detect_ranks, export

# What the last task of `srun -n3` sees on two nodes (Slurm 22.05)
STEP = {
    "SLURM_JOB_ID": "5162701",
    "SLURM_JOB_NODELIST": "node[1-4]",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "3",
    "SLURM_PROCID": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RUN_ID": "x",
}
FULL_NODE = {"SLURM_NODEID": "0", "MASTER_ADDR": "node7"}


def test_plain_call_is_one_rank_that_torch_accepts() -> None:
    ranks = detect_ranks({"MASTER_ADDR": "left-over", "WORLD_SIZE": "8"})
    assert ranks == Ranks()
    assert ranks.is_first
    assert export(ranks) == {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }


def test_task_of_srun() -> None:
    ranks = detect_ranks(STEP)
    assert (ranks.rank, ranks.world_size) == (2, 3)
    assert (ranks.local_rank, ranks.local_world_size) == (0, 1)
    assert (ranks.launcher, ranks.master_address) == ("slurm", "node3")
    assert (ranks.job_id, ranks.restart_count) == ("5162701", 0)
    assert 10_000 <= ranks.master_port < 30_000


def test_shells_of_sbatch_and_salloc_are_one_rank() -> None:
    batch = {k: v for k, v in STEP.items() if "STEP" not in k} | {"SLURM_PROCID": "0"}
    interactive = STEP | {"SLURM_STEP_ID": str(0xFFFFFFFA), "SLURM_PROCID": "0"}
    for environment in (batch, interactive):
        ranks = detect_ranks(environment)
        assert (ranks.launcher, ranks.world_size, ranks.job_id) == ("none", 1, "5162701")


def test_port_differs_after_requeue_in_the_next_job_and_in_the_next_step() -> None:
    changes: list[dict[str, str]] = [
        {},
        {"SLURM_RESTART_COUNT": "1"},
        {"SLURM_RESTART_COUNT": "2"},
        {"SLURM_JOB_ID": "5162702"},
        {"SLURM_STEP_ID": "1"},
        {"SLURM_JOB_ID": "5162702", "SLURM_STEP_ID": "1"},
    ]
    ports = [detect_ranks(STEP | change).master_port for change in changes]
    assert len(set(ports)) == len(ports)
    assert detect_ranks(STEP | {"SLURM_PROCID": "0"}).master_port == ports[0]  # the peers agree


def test_address_and_port_of_the_user_win() -> None:
    ranks = detect_ranks(STEP | {"MASTER_ADDR": "node3i", "MASTER_PORT": "12345"})
    assert (ranks.master_address, ranks.master_port) == ("node3i", 12345)


def test_mpirun_wins_over_the_step_of_its_helper() -> None:
    helper = STEP | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    ranks = detect_ranks(helper | OPEN_MPI)
    assert (ranks.rank, ranks.world_size, ranks.launcher) == (3, 4, "mpi")
    assert ranks.master_address == "node1"  # of the job, not of the helper's step
    batch = {k: v for k, v in STEP.items() if "STEP" not in k}
    first = detect_ranks(batch | OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "0"})
    assert first.master_port == ranks.master_port  # though rank 0 runs in no step


@pytest.mark.parametrize(
    ("local_rank", "local_size"),
    [("MPI_LOCALRANKID", "MPI_LOCALNRANKS"), ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")],
)
def test_mpich_and_pals(local_rank: str, local_size: str) -> None:
    environment = {"PMI_RANK": "1", "PMI_SIZE": "2", local_rank: "1", local_size: "2"}
    ranks = detect_ranks(environment)
    assert (ranks.rank, ranks.local_rank, ranks.local_world_size) == (1, 1, 2)
    assert (ranks.launcher, ranks.master_address) == ("mpi", "127.0.0.1")


def test_torchrun_inside_a_step_wins() -> None:
    ranks = detect_ranks(STEP | TORCHRUN)
    assert (ranks.rank, ranks.world_size, ranks.launcher) == (3, 4, "torchrun")
    assert (ranks.master_address, ranks.master_port) == ("node7", 29400)


def test_export_is_read_back() -> None:
    ranks = detect_ranks(TORCHRUN)
    assert detect_ranks(export(ranks)) == ranks


@pytest.mark.parametrize(
    ("environment", "key", "value", "mentions"),
    [
        (TORCHRUN | {"RANK": "4"}, "rank", 4, ["world_size=4"]),
        (TORCHRUN | {"LOCAL_RANK": "2"}, "local_rank", 2, ["local_world_size=2"]),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "8"}, "local_world_size", 8, ["world_size=4"]),
        (TORCHRUN | {"RANK": "first"}, "RANK", "first", []),
        (TORCHRUN | {"MASTER_PORT": "70000"}, "MASTER_PORT", 70_000, ["65535"]),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "LOCAL_RANK", None, []),
        (STEP | {"RANK": "0", "WORLD_SIZE": "3"}, "RANK", 0, ["srun", "WORLD_SIZE=3"]),
        (STEP | TORCHRUN | FULL_NODE, "srun", None, ["torchrun", "--ntasks-per-node=1"]),
        (STEP | OPEN_MPI | FULL_NODE, "srun", None, ["mpirun", "--ntasks-per-node=1"]),
        (STEP | {"SLURM_NODEID": "2"}, "SLURM_NODEID", 2, ["2", "SLURM_STEP_TASKS_PER_NODE"]),
        (OPEN_MPI, "MASTER_ADDR", None, ["mpirun -x MASTER_ADDR"]),
        ({"PMIX_RANK": "1"}, "PMIX_RANK", 1, ["mpirun", "MASTER_PORT"]),
        ({"PMI_SIZE": "2"}, "PMI_SIZE", 2, ["mpirun", "MASTER_PORT"]),
    ],
)
def test_contradictions_are_reported(environment, key, value, mentions) -> None:
    with user_error(key, *mentions, value=value):
        detect_ranks(environment)


def test_one_gpu_per_task_is_reported() -> None:
    ranks = detect_ranks(TORCHRUN)
    check_visible_devices(ranks, {})
    check_visible_devices(ranks, {"CUDA_VISIBLE_DEVICES": "0,1"})
    with user_error("CUDA_VISIBLE_DEVICES", "--gpus-per-node", value="1"):
        check_visible_devices(ranks, {"CUDA_VISIBLE_DEVICES": "1"})

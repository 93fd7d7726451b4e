"""What `detect_ranks` makes of real steps, shells, arrays and mpirun."""

import json
import sys
from typing import Any

import pytest

from hpc_llm.distributed import expand_hostlist

pytestmark = pytest.mark.slurm

ASK = (
    "import json, os\n"
    "from dataclasses import asdict\n"
    "from hpc_llm.distributed import detect_ranks\n"
    "print(json.dumps(asdict(detect_ranks(os.environ))))"
)
WHO = (sys.executable, "-c", ASK)


def ranks_in(text: str) -> list[dict[str, Any]]:
    """Return the ranks that were printed, by rank; other lines are messages of the launcher."""
    found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sorted(found, key=lambda ranks: ranks["rank"])


def in_batch(slurm_cluster, script: str, *options: str) -> list[dict[str, Any]]:
    """Run a batch script and return the ranks its processes found themselves to be."""
    (slurm_cluster.folder / "ask.py").write_text(ASK)
    (slurm_cluster.folder / "job.sh").write_text(f"#!/bin/bash\n{script}\n")
    slurm_cluster.output("sbatch", "--wait", "--output=%A_%a.out", *options, "job.sh")
    return ranks_in(slurm_cluster.logs())


def test_steps_of_srun(slurm_cluster) -> None:
    ranks = in_batch(slurm_cluster, f"srun -n3 {sys.executable} ask.py", "-N2", "-n3")
    assert [r["rank"] for r in ranks] == [0, 1, 2]
    assert [r["local_rank"] for r in ranks] == [0, 1, 0]
    assert [r["local_world_size"] for r in ranks] == [2, 2, 1]
    for r in ranks:
        assert (r["world_size"], r["launcher"], r["master_address"]) == (3, "slurm", "node1")
    assert len({(r["master_port"], r["job_id"]) for r in ranks}) == 1


def test_step_on_the_second_node_only_meets_there(slurm_cluster) -> None:
    script = f"srun -N1 -n2 -w node2 {sys.executable} ask.py"
    ranks = in_batch(slurm_cluster, script, "-N2", "--ntasks-per-node=2")
    assert [(r["rank"], r["world_size"], r["local_rank"]) for r in ranks] == [(0, 2, 0), (1, 2, 1)]
    assert {r["master_address"] for r in ranks} == {"127.0.0.1"}


def test_two_steps_at_once_meet_at_two_ports(slurm_cluster) -> None:
    step = f"srun --exact -N2 -n2 {sys.executable} ask.py"
    ranks = in_batch(slurm_cluster, f"{step} & {step} & wait", "-N2", "--ntasks-per-node=2")
    assert [r["rank"] for r in ranks] == [0, 0, 1, 1]
    assert len({r["master_port"] for r in ranks}) == 2


def test_batch_shell_is_one_rank(slurm_cluster) -> None:
    (ranks,) = in_batch(slurm_cluster, f"{sys.executable} ask.py", "-N2", "--ntasks-per-node=2")
    assert (ranks["rank"], ranks["world_size"], ranks["launcher"]) == (0, 1, "none")


def test_shell_of_salloc_is_one_rank(slurm_cluster) -> None:
    (ranks,) = ranks_in(slurm_cluster.output("salloc", "-N2", "-n2", *WHO))
    assert (ranks["world_size"], ranks["launcher"]) == (1, "none")
    assert ranks["job_id"] is not None


def test_tasks_of_an_array_have_their_own_job_and_port(slurm_cluster) -> None:
    script = f"srun -n2 {sys.executable} ask.py"
    ranks = in_batch(slurm_cluster, script, "--array=3-4", "-n2")
    assert [r["rank"] for r in ranks] == [0, 0, 1, 1]
    assert len({(r["job_id"], r["master_port"]) for r in ranks}) == 2


def test_mpirun_inside_an_allocation(slurm_cluster) -> None:
    slurm_cluster.require_mpirun()
    as_root = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    script = f"{as_root}\nmpirun --map-by ppr:2:node {sys.executable} ask.py"
    ranks = in_batch(slurm_cluster, script, "-N2", "--ntasks-per-node=2")
    assert [r["rank"] for r in ranks] == [0, 1, 2, 3]
    assert [r["local_rank"] for r in ranks] == [0, 1, 0, 1]
    for r in ranks:
        assert (r["world_size"], r["launcher"], r["master_address"]) == (4, "mpi", "node1")
    assert len({r["master_port"] for r in ranks}) == 1


def test_hostlist_is_what_scontrol_says(slurm_cluster) -> None:
    for hostlist in ("node[01-03,7],gpu1", "n[098-101]", "n[9-11]", "r[1-2]n[01-02]", "one"):
        said = slurm_cluster.output("scontrol", "show", "hostnames", hostlist).split()
        assert expand_hostlist(hostlist) == said

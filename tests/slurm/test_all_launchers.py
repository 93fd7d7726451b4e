"""Training on two nodes with two ranks each: all launchers give bit-identical results."""

from pathlib import Path

import pytest
from tiny import hpc_llm, records
from training_run import BEFORE, SETTINGS, TrainingRun, new_run

from hpc_llm.rundir import read_jsonl

pytestmark = pytest.mark.slurm

HEAD = """#!/bin/bash
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
address=${MASTER_ADDR:-node1}
port=$((15000 + SLURM_JOB_ID % 10000))
"""
TORCHRUN = "torchrun --nnodes=2 --nproc-per-node=2"
ONE_EACH = "srun --ntasks-per-node=1 -n2"
LAUNCHERS = {
    "srun": "srun -n4 hpc-llm",
    "mpirun": "mpirun --map-by ppr:2:node hpc-llm",
    "srun torchrun": (
        f"{ONE_EACH} {TORCHRUN} --rdzv-backend=c10d --rdzv-id=x --rdzv-endpoint=$address:$port "
        "-m hpc_llm.app"
    ),
    "torchrun": (
        f"{ONE_EACH} bash -c 'exec {TORCHRUN} --node-rank=$SLURM_NODEID "
        "--master-addr='$address' --master-port='$port' -m hpc_llm.app \"$@\"' bash"
    ),
}
FEW = [*SETTINGS, "tracking=off", "stages.lora.steps=6", "checkpoint.minutes=1000"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run folder with all stages before train/lora done."""
    runs = tmp_path_factory.mktemp("base")
    hpc_llm("adapt", *FEW, "--stages", BEFORE, f"runs_dir={runs}", OMP_NUM_THREADS="1")
    return runs / "run"


@pytest.fixture(scope="module")
def trained(base: Path, cluster_in, tmp_path_factory):
    """Train with a launcher, once each."""
    done: dict[str, TrainingRun] = {}

    def train(launcher: str) -> TrainingRun:
        if launcher not in done:
            run = new_run(base, cluster_in(tmp_path_factory.mktemp(launcher.replace(" ", "-"))))
            words = " ".join(f"'{word}'" for word in (*FEW, f"runs_dir={run.folder.parent}"))
            script = run.cluster.folder / "job.sh"
            script.write_text(f"{HEAD}{LAUNCHERS[launcher]} train {words}\n")
            options = ("--parsable", "-N2", "--ntasks-per-node=2", "--output=train-%j.out")
            job = run.cluster.output("sbatch", *options, str(script), **run.prepared())
            assert run.finish(job) == 0
            done[launcher] = run
        return done[launcher]

    return train


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_all_launchers_give_the_same_result(launcher: str, trained, slurm_cluster) -> None:
    if launcher == "mpirun":
        slurm_cluster.require_mpirun()
    run, srun = trained(launcher), trained("srun")
    assert records(run.folder)[-1] == "train/lora"
    assert len(run.steps()) == 6
    bill = [row for row in read_jsonl(run.folder / "ledger.jsonl") if row["stage"] == "train/lora"]
    assert {row["devices"] for row in bill} == {4}
    assert run.weights() == srun.weights()
    assert run.steps() == srun.steps()

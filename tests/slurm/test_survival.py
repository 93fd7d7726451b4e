"""Faults that a training run survives on a real Slurm, each compared with a run that had none.

Two nodes with one rank each train stage `lora` of the tiny example, and are struck in the middle.
In the end the weights are the same, bit for bit, the same steps are in `events.jsonl`, none twice,
and there is one W&B run without doubled steps. The names of the faults are what `make slurm-test`
lists at its end.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tiny import hpc_llm
from training_run import (
    BEFORE,
    SETTINGS,
    STEPS,
    TrainingRun,
    is_asked,
    kill,
    lose_power,
    mend,
    new_run,
    tasks,
    wait_until,
)

from hpc_llm.rundir import read_jsonl

pytestmark = pytest.mark.slurm

SHORT = "short"  # a partition whose jobs may take two minutes


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A run folder in which all before train/lora is done."""
    runs = tmp_path_factory.mktemp("base")
    words = [*SETTINGS, "tracking=off", "--stages", BEFORE, f"runs_dir={runs}"]
    hpc_llm("adapt", *words, OMP_NUM_THREADS="1")
    return runs / "run"


@pytest.fixture(scope="module")
def reference(base: Path, cluster_in, tmp_path_factory) -> TrainingRun:
    """A run that nothing has struck."""
    run = new_run(base, cluster_in(tmp_path_factory.mktemp("reference")))
    assert run.finish(run.submit()) == 0
    assert [step[0] for step in run.steps()] == list(range(1, STEPS + 1))
    return run


@pytest.fixture
def run(base: Path, slurm_cluster) -> Iterator[TrainingRun]:
    """A run to be struck; afterwards both nodes are whole again."""
    short = ("partitionname=short", "nodes=node[1-2]", "maxtime=2", "defaulttime=2")
    slurm_cluster.run("scontrol", "create", *short)
    yield new_run(base, slurm_cluster)
    slurm_cluster.empty_queue()
    mend(slurm_cluster, "node1", "node2")
    for log in slurm_cluster.folder.glob("train-*.out"):
        for process, _ in tasks(log.stem.removeprefix("train-")):
            kill(process.pid)
    idle = "until [ $(sinfo -hNpmain -nnode[1-2] -tidle | wc -l) = 2 ]; do sleep 0.1; done"
    slurm_cluster.output("timeout", "60", "bash", "-c", idle)


def time_limit(run: TrainingRun) -> str:
    # Slurm looks every half minute, so the signal comes when it may: a stopped rank waits for it,
    # unless it has come before
    job = run.submit_and_wait("--time=2", "--signal=USR1@40")
    last = run.rank(job, 1)
    last.suspend()
    wait_until(lambda: is_asked(last) or run.asked(), run.cluster.logs)
    if last.is_running():
        last.resume()
    # once is enough: on a busy machine a start takes most of what the limit leaves
    longer = "until scontrol update jobid=$0 timelimit=30; do sleep 0.2; done"
    run.cluster.output("timeout", "60", "bash", "-c", longer, job)
    return job


def preemption(run: TrainingRun) -> str:
    job = run.submit_and_wait("--partition=low")
    run.cluster.output("srun", "-Q", "--partition=high", "-N2", "--exclusive", "true")
    return job


def requeue(run: TrainingRun) -> str:
    job = run.submit_and_wait()
    run.cluster.output("scontrol", "requeue", job)
    return job


def cancelled_and_submitted_again(run: TrainingRun) -> str:
    job = run.submit_and_wait()
    run.cluster.output("scancel", job)
    run.cluster.wait_for_state(job, "CANCELLED 0")
    return run.submit()


def node_set_down(run: TrainingRun) -> str:
    job = run.submit_and_wait()
    run.cluster.output("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    mend(run.cluster, "node2")
    return job


def slurmd_killed(run: TrainingRun) -> str:
    # Its rank continues as if nothing had happened: nobody can end it
    job = run.submit_and_wait()
    left = run.rank(job, 1)
    left.suspend()
    kill(int((run.cluster.slurm_conf.parent / "pid" / "slurmd.node2.pid").read_text()))
    run.cluster.output("scontrol", "update", "nodename=node2", "state=down", "reason=test")
    assert left.is_running()
    left.resume()
    mend(run.cluster, "node2")
    return job


def power_loss(run: TrainingRun) -> str:
    # The dead node's kernel would end its connections here; so the other rank must not see it
    job = run.submit_and_wait()
    run.rank(job, 0).suspend()
    lose_power(run.cluster.slurm_conf, "node2", job)
    lost = "until sinfo -hNpmain -nnode2 -o%t | grep -q down; do sleep 0.1; done"
    run.cluster.output("timeout", "90", "bash", "-c", lost)
    mend(run.cluster, "node2")
    return job


def short_partition(run: TrainingRun) -> str:
    job = run.submit(f"--partition={SHORT}", "--signal=USR1@1")
    for step in (6, 14, 22):
        run.wait_for_step(step)
        run.cluster.output("scancel", "-s", "USR1", job)  # as --signal does before the limit
        state = run.cluster.state(job).split()[1]
        wait_until(lambda seen=state: run.cluster.state(job).split()[1] != seen, run.cluster.logs)
    return job


def killed_rank(run: TrainingRun) -> str:
    job = run.submit_and_wait()
    run.rank(job, 1).kill()
    run.cluster.wait_for_state(job, "FAILED 0")
    return run.submit()


def hanging_rank(run: TrainingRun) -> str:
    job = run.submit_and_wait(overrides=("guards.stall_minutes=0.1",))
    run.rank(job, 1).suspend()
    run.cluster.wait_for_state(job, "FAILED 0")
    host = "node2" if run.cluster.named_nodes else os.uname().nodename
    assert f"rank 1 on {host} " in run.cluster.logs()
    assert "guards.stall_minutes" in run.cluster.logs()
    return run.submit()


# What strikes, and the least number of restarts by Slurm
FAULTS: dict[str, tuple[Callable[[TrainingRun], str], int]] = {
    "the time limit comes near (--signal)": (time_limit, 1),
    "preempted by a job of a higher tier": (preemption, 1),
    "scontrol requeue": (requeue, 1),
    "scancel, and submitted again": (cancelled_and_submitted_again, 0),
    "a node is set down": (node_set_down, 1),
    "a node's slurmd is killed": (slurmd_killed, 1),
    "a node loses power": (power_loss, 1),
    "one rank is killed, and submitted again": (killed_rank, 0),
    "one rank hangs, is named, and submitted again": (hanging_rank, 0),
    "a partition with a short limit: a chain of restarts": (short_partition, 3),
}


def assert_ends_like(run: TrainingRun, reference: TrainingRun) -> None:
    assert run.weights() == reference.weights()
    assert run.steps() == reference.steps()


@pytest.mark.parametrize("fault", FAULTS)
def test_survives(fault: str, run: TrainingRun, reference: TrainingRun) -> None:
    strike, restarts = FAULTS[fault]
    assert run.finish(strike(run)) >= restarts
    assert_ends_like(run, reference)
    ids, logged = run.logged_steps()
    assert len(ids) == 1
    assert logged == sorted(set(logged)), "steps logged to W&B twice"
    assert logged[-1] == reference.logged_steps()[1][-1]


def test_survives_a_rank_left_over_from_a_lost_node(
    run: TrainingRun, reference: TrainingRun, third_node: str
) -> None:
    # gloo may let it wait for a rank that is gone: then it is the watchdog that ends it
    job = run.submit_and_wait(overrides=("tracking=off", "guards.stall_minutes=1"))
    ghost = run.rank(job, 0)
    ghost.suspend()
    kill(int((run.cluster.slurm_conf.parent / "pid" / "slurmd.node1.pid").read_text()))
    run.cluster.output("scontrol", "update", "nodename=node1", "state=down", "reason=test")
    assert run.finish(job) == 1
    assert_ends_like(run, reference)
    before = run.files()
    assert ghost.status() == psutil.STATUS_STOPPED
    ghost.resume()  # its node sees the file system again
    psutil.wait_procs([ghost], timeout=90)
    assert not ghost.is_running()
    assert run.files() == before


def test_a_job_that_fails_three_times_at_the_same_step_stops_and_says_so(
    run: TrainingRun, reference: TrainingRun
) -> None:
    never = ("tracking=off", "checkpoint.minutes=1000")
    job = run.submit(overrides=never)
    wait_until(lambda: len(run.steps()) > 2, run.cluster.logs)
    run.rank(job, 1).kill()
    run.cluster.wait_for_state(job, "FAILED 0")
    starts = run.folder / "starts.jsonl"
    failed = [line for line in read_jsonl(starts) if line["start"] == 2]  # 1 has made the base
    with starts.open("a") as handle:  # two more like it
        for line in [line | {"start": number} for number in (3, 4) for line in failed]:
            print(json.dumps(line), file=handle)
    refused = run.submit(overrides=never)
    run.cluster.wait_for_state(refused, "FAILED 0")
    said = run.cluster.logs()
    assert re.search(r"launch\.max_failures=3: crash loop: .*train/lora, step 0: ", said)
    assert f"job {job} restart 0 on node[1-2]: exit code 1, " in said
    assert "launch.max_failures=0" in said
    run.finish(run.submit(overrides=(*never, "launch.max_failures=0")))
    assert_ends_like(run, reference)

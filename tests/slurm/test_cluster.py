"""The private cluster itself: what the other tests rest on."""

import sys

import pytest

pytestmark = pytest.mark.slurm


def test_step_on_two_nodes(slurm_cluster) -> None:
    out = slurm_cluster.output("srun", "-Q", "-N2", "-n2", "bash", "-c", "echo $SLURMD_NODENAME")
    assert sorted(out.split()) == ["node1", "node2"]


def test_pretend_gpus(slurm_cluster) -> None:
    show = ("bash", "-c", "echo $CUDA_VISIBLE_DEVICES")
    assert slurm_cluster.output("srun", "-Q", "-n1", "--gpus-per-node=2", *show) == "0,1"


def test_accounting_knows_a_failed_job(slurm_cluster) -> None:
    if not slurm_cluster.accounting:
        pytest.skip("mariadb-server and slurmdbd are not installed")
    done = slurm_cluster.run("sbatch", "--wait", "--parsable", "-o/dev/null", "--wrap", "exit 3")
    assert done.returncode == 3
    job = done.stdout.strip()
    wait = "until sacct -nXP -o state,exitcode -j $0 | grep 'FAILED|3:0'; do sleep 0.1; done"
    assert "FAILED|3:0" in slurm_cluster.output("timeout", "30", "bash", "-c", wait, job)


def test_accounting_distinguishes_a_lost_node_from_what_was_asked_for(slurm_cluster) -> None:
    if not slurm_cluster.accounting:
        pytest.skip("mariadb-server and slurmdbd are not installed")
    submit = ("sbatch", "--parsable", "-plow", "-wnode2", "--requeue", "-o/dev/null")
    job = slurm_cluster.output(*submit, "--wrap", "sleep 600")

    def struck(restart: int, *command: str) -> None:
        slurm_cluster.wait_for_state(job, f"RUNNING {restart}")
        slurm_cluster.output("sleep", "1")  # accounting counts in seconds
        slurm_cluster.output(*command)

    struck(0, "scontrol", "requeue", job)
    struck(1, "scontrol", "update", "nodename=node2", "state=down", "reason=test")
    slurm_cluster.run("scontrol", "update", "nodename=node2", "state=resume")
    struck(2, "srun", "-Q", "-phigh", "-wnode2", "--exclusive", "true")
    slurm_cluster.wait_for_state(job, "RUNNING 3")
    slurm_cluster.output("scancel", job)
    ask = (
        "from hpc_llm.scheduler import start_states; import sys; print(*start_states(sys.argv[1]))"
    )
    told = slurm_cluster.output(sys.executable, "-c", ask, job).split()
    assert told[:3] == ["REQUEUED", "NODE_FAIL", "PREEMPTED"]

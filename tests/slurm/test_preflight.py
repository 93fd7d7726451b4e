"""`hpc-llm preflight` on a real Slurm: nodes that are healthy, throttled and lost.

The measuring is real. A node is throttled by stopping its rank nine tenths of the time, as a
thermal limit would do.
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpc_llm.accounting import Ledger

pytestmark = pytest.mark.slurm

SCRIPTS = Path(__file__).resolve().parents[2] / "slurm"
PATIENCE = 240  # seconds; a throttled rank takes ten times as long to load and to end, too
SUBMIT = ("sbatch", "--parsable", "-N2", "--ntasks-per-node=1")
# The nodes share this machine's cores: healthy ones may differ by much more than on a cluster
QUICK = [
    "preflight.slow_factor=4",
    "preflight.seconds=1",
    "preflight.message_mib=1",
    "preflight.min_free_gib=0",
    "preflight.min_disk_gib=0",
    "run=x",
]

# In the place of hpc-llm: `preflight` is the real one, other verbs are those of the stub
PROGRAM = f"""\
#!{sys.executable}
import os, signal, sys, time
node, verb = os.environ.get("SLURMD_NODENAME"), sys.argv[1]
if verb != "preflight":
    os.execv(__file__ + "-stub", sys.argv)
if node == os.environ.get("LOST"):
    os._exit(9)
import hpc_llm.config, hpc_llm.preflight.examine, hpc_llm.pipeline.account  # what is slow to load
from hpc_llm.app.main import main
rank = os.getpid()
if node == os.environ.get("THROTTLED") and os.fork() == 0:
    try:
        while os.getppid() == rank:
            os.kill(rank, signal.SIGSTOP)
            time.sleep(0.09)
            os.kill(rank, signal.SIGCONT)
            time.sleep(0.01)
    finally:
        os._exit(0)
sys.exit(main(sys.argv[1:]))
"""

# A job as launch=slurm writes it, with PROGRAM in the place of hpc-llm
JOB = """
import sys
from pathlib import Path
from hpc_llm import config, launch
words = ["experiment=example", "launch=slurm", "launch.preflight=true", "cluster.nodes=2"]
cfg = config.typed(config.compose([*words, *sys.argv[1:]]))
cfg.folder.mkdir(parents=True)
config.write(cfg, cfg.folder / "config.yaml")
script = launch.job_script(cfg, "adapt", cfg.folder / "config.yaml")
script = script.replace(" hpc-llm ", f" {Path.cwd()}/bin/hpc-llm ")
print(*launch.submit_chain([(cfg.folder / "job.sbatch", script)]))
"""


@pytest.fixture
def cluster(slurm_cluster):
    """The cluster, with PROGRAM in the place of hpc-llm."""
    program = slurm_cluster.folder / "bin" / "hpc-llm"
    shutil.move(program, f"{program}-stub")
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return slurm_cluster


@pytest.fixture
def meeting(cluster) -> dict[str, str]:
    """Nodes without names meet at this machine's address."""
    return {} if cluster.named_nodes else {"MASTER_ADDR": "127.0.0.1"}


def found(cluster) -> dict:
    return json.loads((cluster.folder / "runs/x/preflight.json").read_text())


def rows(cluster) -> list:
    return Ledger(cluster.folder / "runs/x/ledger.jsonl").rows("preflight")


def test_healthy_pair_passes(cluster, meeting) -> None:
    script = str(SCRIPTS / "preflight.sbatch")
    job = cluster.output(*SUBMIT, script, *QUICK, **meeting)
    cluster.wait_for_state(job, "COMPLETED 0", PATIENCE)
    table = found(cluster)
    assert list(table["hosts"]) == ["node1", "node2"]
    assert (table["job"], table["problems"], table["failures"]) == (job, {}, [])
    for host in table["hosts"].values():
        assert host["links"]["gloo"] > 0
        # one machine, one clock: what is printed is the error of the measurement
        assert abs(host["clock_seconds"]) < 1
    assert table["all_reduce"][0]["ranks"] == 2
    (row,) = rows(cluster)
    assert (row.job, row.devices) == (job, 2)
    assert re.search(r"^2\b.* nodes\b", cluster.logs(), re.MULTILINE)
    assert not (cluster.folder / "runs/x/preflight.exclude").exists()


def submit(cluster, verb: str, *options: str, words: Sequence[str] = (), **variables: str) -> str:
    """Submit a verb with the preflight in front; return the job id."""
    call = [*SUBMIT, *options, str(SCRIPTS / f"{verb}.sbatch"), *QUICK, *words]
    return cluster.output(*call, HPC_LLM_PREFLIGHT="1", **variables)


def test_throttled_node_is_excluded_and_the_job_starts_again_on_another(
    cluster, meeting, third_node
) -> None:
    job = submit(cluster, "adapt", THROTTLED="node2", **meeting)
    cluster.wait_for_state(job, "COMPLETED 1", PATIENCE)
    first, second = rows(cluster)
    assert (first.job, first.restart, second.restart) == (job, 0, 1)
    assert re.search(r"node2: rank \d+: .* TFLOP/s, .*preflight\.slow_factor=", cluster.logs())
    assert "--exclude=node2" in cluster.logs()
    assert re.search(r"\bnode2 .*requeued.*restart 1\b.*\b20\b", cluster.logs())
    assert list(found(cluster)["hosts"]) == ["node1", third_node]
    assert cluster.places(job, 0) == []  # the bad node has cost the preflight and no more
    nodes = [p["environment"]["SLURMD_NODENAME"] for p in cluster.places(job, 1)]
    assert nodes == ["node1", third_node]


def test_a_job_of_launch_slurm_does_the_same(cluster, meeting, third_node) -> None:
    job = cluster.output(sys.executable, "-c", JOB, *QUICK, THROTTLED="node2", **meeting)
    cluster.wait_for_state(job, "COMPLETED 1", PATIENCE)
    log = (cluster.folder / f"runs/x/slurm-{job}.out").read_text()
    assert re.search(r"job\.sbatch: .*\bnode2 .*requeued.*restart 1\b.*\b20\b", log)
    assert list(found(cluster)["hosts"]) == ["node1", third_node]
    assert [row.restart for row in rows(cluster)] == [0, 1]
    assert cluster.places(job, 0) == []
    assert len(cluster.places(job, 1)) == 2


def test_lost_node_is_named_and_earlier_exclusions_stay(cluster, meeting, third_node) -> None:
    options = (f"--exclude={third_node}",)
    words = ["preflight.wait_seconds=20"]
    job = submit(cluster, "train", *options, words=words, LOST="node2", **meeting)
    cluster.wait_for_state(job, "PENDING 1", PATIENCE)  # one node is not enough
    assert re.search(r"node2: .*preflight\.wait_seconds=20\b.*\brank 1\b", cluster.logs())
    assert cluster.output("squeue", "-hj", job, "-o%x") == "node[2-3]"
    cluster.output("scancel", job)


def test_no_more_restarts_than_allowed(cluster, meeting) -> None:
    job = submit(cluster, "train", THROTTLED="node2", HPC_LLM_MAX_REQUEUES="0", **meeting)
    cluster.wait_for_state(job, "FAILED 0", PATIENCE)
    assert cluster.places(job) == []
    assert "HPC_LLM_MAX_REQUEUES=0" in cluster.logs()
    exclude = (cluster.folder / "runs/x/preflight.exclude").read_text()
    assert exclude == "node2\n"


def test_mpirun_measures_by_mpi_too(cluster) -> None:
    cluster.require_mpirun()
    as_root = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"
    words = " ".join(QUICK)
    (cluster.folder / "job.sh").write_text(
        f"#!/bin/bash\n{as_root}\nmpirun --map-by ppr:1:node hpc-llm preflight {words}\n"
    )
    job = cluster.output(*SUBMIT, "--output=%j.out", "job.sh")
    cluster.wait_for_state(job, "COMPLETED 0", PATIENCE)
    for host in found(cluster)["hosts"].values():
        assert set(host["links"]) == {"gloo", "mpi"}
    assert [reduce["link"] for reduce in found(cluster)["all_reduce"]] == ["gloo", "mpi"]


def test_torchrun_on_each_node(cluster, meeting) -> None:
    address = meeting.get("MASTER_ADDR", "$(scontrol show hostnames | head -n1)")
    (cluster.folder / "job.sh").write_text(
        "#!/bin/bash\n"
        f"at={address}:$((15000 + SLURM_JOB_ID % 10000))\n"
        "srun torchrun --nnodes=2 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-id=x "
        f"--rdzv-endpoint=$at -m hpc_llm.app preflight {' '.join(QUICK)}\n"
    )
    job = cluster.output(*SUBMIT, "--output=%j.out", "job.sh")
    cluster.wait_for_state(job, "COMPLETED 0", PATIENCE)
    assert sorted(found(cluster)["hosts"]) == ["node1", "node2"]
    assert found(cluster)["all_reduce"][0]["ranks"] == 4

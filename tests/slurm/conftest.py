"""A real Slurm of two nodes on this machine, started once for all tests that ask for it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
CLUSTER = HERE / "cluster"
PROGRAMS = ("munged", "sbatch", "scancel", "scontrol", "slurmctld", "slurmd", "squeue", "srun")
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
# What an outer allocation or launcher would pass to the commands of the tests
FOREIGN = ("SLURM", "SBATCH", "SRUN", "PMI", "OMPI", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_")

# In the place of hpc-llm: writes where it is and what it was given to the folder PLACES, then does
# what the variable ACT says, in Python
STUB = f"""\
#!{sys.executable}
import glob, json, os, signal, sys, time
from dataclasses import asdict
sys.path.insert(0, {str(REPOSITORY)!r})
from hpc_llm.distributed import StopFlag, detect_ranks
from hpc_llm.errors import Stopped
ranks = detect_ranks(os.environ)
place = dict(asdict(ranks), argv=sys.argv[1:], environment=dict(os.environ))
name = f"{{os.environ['PLACES']}}/{{ranks.job_id}}.{{ranks.restart_count}}.{{ranks.rank}}.json"
def write():
    with open(name + "_", "w") as handle:
        json.dump(place, handle)
    os.rename(name + "_", name)
def barrier():
    "Wait until every rank has written its place."
    while len(glob.glob(name.removesuffix(f"{{ranks.rank}}.json") + "*.json")) < ranks.world_size:
        time.sleep(0.02)
try:
    with StopFlag() as flag:
        write()
        exec(os.environ.get("ACT", ""))
except Stopped:  # all ranks stop, as in training, and leave one after the other
    barrier()
    time.sleep(0.5 * ranks.rank)
    sys.exit(75)
"""


@dataclass(frozen=True)
class Cluster:
    """A running Slurm, a stub in the place of hpc-llm, and a folder to work in."""

    slurm_conf: Path
    folder: Path
    """Working folder of one test; logs of jobs land here."""

    @property
    def environment(self) -> dict[str, str]:
        """What the commands of a test see: this cluster, and no other launcher."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        return kept | {
            "SLURM_CONF": str(self.slurm_conf),
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{SYSTEM_PATH}",
            "PYTHONPATH": str(REPOSITORY),
            "PLACES": str(self.folder / "places"),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def accounting(self) -> bool:
        """Whether sacct knows the jobs."""
        return "accounting_storage/slurmdbd" in self.slurm_conf.read_text()

    @property
    def named_nodes(self) -> bool:
        """Whether node1 and node2 are names that resolve on the nodes (needs root)."""
        return (self.slurm_conf.parent / "hosts").exists()

    def require_mpirun(self) -> None:
        """Skip, or fail where Slurm has to be there, without Open MPI's mpirun."""
        if shutil.which("mpirun", path=self.environment["PATH"]) is None:
            _refuse("mpirun is not installed: pip install hpc-llm[mpi]")
        if "Open MPI" not in self.output("mpirun", "--version"):
            _refuse("mpirun is not Open MPI's: pip install hpc-llm[mpi]")
        if not self.named_nodes:
            pytest.skip("without root all nodes have this machine's name, and mpirun sees one")

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its output, with the errors, is in `stdout`."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )

    def output(self, *command: str, **variables: str) -> str:
        """Run a command that must succeed and return what it printed."""
        done = self.run(*command, **variables)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Return the job's state, for example COMPLETED, and its restarts, as `COMPLETED 1`."""
        fields = self.output("scontrol", "show", "job", "--oneliner", job).split()
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        return f"{values['JobState']} {values['Restarts']}"

    def wait_for(self, *names: str) -> None:
        """Wait until files of the working folder are there."""
        deadline = time.monotonic() + 60
        while missing := [name for name in names if not (self.folder / name).exists()]:
            assert time.monotonic() < deadline, f"{missing} are not there: {self.logs()}"
            time.sleep(0.05)

    def wait_for_state(self, job: str, state: str, seconds: float = 120) -> None:
        """Wait until a job is in `state`, as `state()` returns it."""
        deadline = time.monotonic() + seconds
        while (now := self.state(job)) != state:
            assert time.monotonic() < deadline, f"{now}, not {state}: {self.logs()}"
            time.sleep(0.1)

    def empty_queue(self) -> None:
        """Cancel all jobs and wait until Slurm has done with them."""
        gone = 'until [ -z "$(squeue -h)" ]; do scancel $(squeue -ho%A) || true; sleep 0.2; done'
        self.output("timeout", "60", "bash", "-c", gone)

    def places(self, job: str, restart: int = 0) -> list[dict[str, Any]]:
        """Return what the stub's ranks of a job saw, by rank."""
        files = (self.folder / "places").glob(f"{job}.{restart}.*.json")
        return sorted((json.loads(f.read_text()) for f in files), key=lambda place: place["rank"])

    def logs(self) -> str:
        """Return the logs of this test's jobs."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.out")))


def _refuse(reason: str) -> None:
    """Skip, or fail where Slurm has to be there."""
    if os.environ.get("HPC_LLM_REQUIRE_SLURM") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _first_port() -> int:
    """Return the first of 300 free ports, above those of jobs and below the ephemeral ones."""
    bases = range(30_000, 32_700, 300)
    turn = os.getpid() % len(bases)  # test processes that start together do not race for one
    for base in (*bases[turn:], *bases[:turn]):
        if all(_is_free(base + offset) for offset in (0, 1, 2, 11, 12, 13)):
            return base
    return pytest.fail("no free ports for Slurm from 30000 to 32699")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def only_worker(testrun_uid: str) -> Iterator[None]:
    """Fail in a second worker: two Slurms on one machine slow each other beyond time limits."""
    path = Path(tempfile.gettempdir(), f"slurm-{testrun_uid}.lock")
    try:
        with FileLock(path, blocking=False):
            yield
    except Timeout:
        pytest.fail("a Slurm in two workers: run pytest with --dist loadgroup")
    path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def slurm_conf(only_worker: None) -> Iterator[Path]:
    """Start the cluster; stop it, by the pids it wrote down, when the tests are over."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        _refuse(f"Slurm is not installed: {', '.join(missing)} missing; see tests/slurm/cluster")
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short, for its unix sockets
    variables = os.environ | {"SLURM_CLUSTER_PORT": str(_first_port())}
    try:
        started = subprocess.run(
            [CLUSTER / "start.sh", folder, "2", "4", "2"],
            env=variables,
            stdout=(folder / "start.log").open("w"),
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )
        if started.returncode != 0:
            pytest.fail((folder / "start.log").read_text())
        yield folder / "slurm.conf"
    finally:
        subprocess.run([CLUSTER / "stop.sh", folder], timeout=120, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster_in(slurm_conf: Path) -> Callable[[Path], Cluster]:
    """Give the running Slurm with a folder to work in, and the stub."""

    def cluster_in(folder: Path) -> Cluster:
        for name in ("bin", "places"):
            (folder / name).mkdir()
        stub = folder / "bin" / "hpc-llm"
        stub.write_text(STUB)
        stub.chmod(0o755)
        return Cluster(slurm_conf=slurm_conf, folder=folder)

    return cluster_in


@pytest.fixture
def slurm_cluster(cluster_in: Callable[[Path], Cluster], tmp_path: Path) -> Cluster:
    """A running Slurm with an empty queue, and a folder of its own for this test."""
    cluster = cluster_in(tmp_path)
    cluster.empty_queue()  # a job that an earlier test has cancelled may take its time to end
    return cluster


@pytest.fixture
def third_node(slurm_cluster: Cluster) -> Iterator[str]:
    """A third node for this test; Slurm takes it after the other two."""
    folder = slurm_cluster.slurm_conf.parent
    slurm_cluster.output(str(folder / "start_node.sh"), "node3")  # Slurm sees it when it calls
    idle = "until sinfo -hNnnode3 -tidle | grep node3; do sleep 0.1; done"
    slurm_cluster.output("timeout", "30", "bash", "-c", idle)
    yield "node3"
    os.kill(int((folder / "pid" / "slurmd.node3.pid").read_text()), signal.SIGTERM)
    slurm_cluster.output("scontrol", "update", "nodename=node3", "state=future")

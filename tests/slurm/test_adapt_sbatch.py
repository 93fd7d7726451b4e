"""`slurm/adapt.sbatch` on a real Slurm, most of it with a stub in the place of hpc-llm."""

import json
import math
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
from tiny import TINY

from hpc_llm.accounting import Ledger

pytestmark = pytest.mark.slurm

SCRIPT = Path(__file__).resolve().parents[2] / "slurm" / "adapt.sbatch"
WAIT = ("sbatch", "--wait", "--parsable")

STOP_AT_A_SIGNAL = """
while flag.reason is None and ranks.restart_count == 0:
    time.sleep(0.02)
place["reason"] = flag.reason
write()
if flag.reason:
    raise Stopped
"""


def job_id(text: str) -> str:
    """Return the job id that `sbatch --parsable` printed first."""
    return text.split()[0]


def test_no_variables_where_slurm_expands_none() -> None:
    directives = re.findall(r"^#SBATCH.*", SCRIPT.read_text(), re.MULTILINE)
    assert directives
    assert not [line for line in directives if "$" in line]


def test_dry_run_checks_the_nodes(slurm_cluster) -> None:
    said = slurm_cluster.output("sbatch", "--test-only", "-N2", str(SCRIPT), "run=x")
    assert "to start at" in said
    assert "node[1-2]" in said
    assert slurm_cluster.run("sbatch", "--test-only", "-N3", str(SCRIPT)).returncode != 0


def test_arguments_and_node_count_reach_every_rank(slurm_cluster) -> None:
    overrides = ["run=a b", "x='single' \"double\"", "y=[1,2]", "z=$HOME;*", "~w", "", "ж=\\n"]
    job = job_id(slurm_cluster.output(*WAIT, "-N2", "--ntasks-per-node=2", str(SCRIPT), *overrides))
    places = slurm_cluster.places(job)
    assert [p["argv"] for p in places] == [["adapt", *overrides]] * 4
    assert [p["local_rank"] for p in places] == [0, 1, 0, 1]
    assert (slurm_cluster.folder / f"adapt-{job}.out").exists()


def test_cores_reach_every_rank(slurm_cluster) -> None:
    # env -u: the tests' own OMP_NUM_THREADS is not to be seen here
    submit = ("env", "-u", "OMP_NUM_THREADS", *WAIT, "-n2", "--cpus-per-task=2", str(SCRIPT))
    places = slurm_cluster.places(job_id(slurm_cluster.output(*submit)))
    assert len(places) == 2
    for place in places:
        assert place["environment"]["OMP_NUM_THREADS"] == "2"
        assert place["environment"]["SLURM_CPUS_PER_TASK"] == "2"  # set by srun for its tasks


@pytest.mark.parametrize("how", ["--exclusive", "--ntasks-per-node=2"])
def test_one_task_for_each_gpu(slurm_cluster, how: str) -> None:
    done = slurm_cluster.output(*WAIT, "-N2", "--gpus-per-node=2", how, str(SCRIPT))
    places = slurm_cluster.places(job_id(done))
    assert [p["local_rank"] for p in places] == [0, 1, 0, 1]
    assert {p["environment"]["CUDA_VISIBLE_DEVICES"] for p in places} == {"0,1"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--gpus-per-node=2",), "1 cores .* 2; .*--ntasks-per-node=2"),
        (("--gpus-per-node=2", "--ntasks-per-node=1"), "1 tasks .* 2 GPUs"),
        (("--export=ALL,HPC_LLM_VENV=/nowhere",), "HPC_LLM_VENV=/nowhere"),
        (("--export=ALL,PATH=/usr/bin:/bin",), "neither in"),
    ],
)
def test_wrong_input_is_reported(slurm_cluster, options: tuple[str, ...], words: str) -> None:
    done = slurm_cluster.run(*WAIT, "-N1", *options, str(SCRIPT))
    assert done.returncode == 2
    assert re.search(words, slurm_cluster.logs())
    assert slurm_cluster.places("*") == []


def test_virtual_environment_beside_the_job_is_used(slurm_cluster) -> None:
    folder = slurm_cluster.folder
    (folder / ".venv").mkdir()
    shutil.move(folder / "bin", folder / ".venv" / "bin")
    activate = f'export VIRTUAL_ENV={folder}/.venv PATH="{folder}/.venv/bin:$PATH"\n'
    (folder / ".venv" / "bin" / "activate").write_text(activate)
    (place,) = slurm_cluster.places(job_id(slurm_cluster.output(*WAIT, str(SCRIPT))))
    assert place["environment"]["VIRTUAL_ENV"] == f"{folder}/.venv"


def test_exit_75_starts_the_job_again(slurm_cluster) -> None:
    act = "barrier()\n"
    act += "os.mkdir(os.environ['TORCH_EXTENSIONS_DIR']) if ranks.is_first else None\n"
    act += "if ranks.restart_count == 0: raise Stopped"
    job = job_id(slurm_cluster.output(*WAIT, "-N2", str(SCRIPT), "a=b c", ACT=act))
    slurm_cluster.wait_for_state(job, "COMPLETED 1")
    for restart in (0, 1):
        places = slurm_cluster.places(job, restart)
        assert [p["argv"] for p in places] == [["adapt", "a=b c"]] * 2
        (compiled,) = {p["environment"]["TORCH_EXTENSIONS_DIR"] for p in places}
        assert compiled.endswith(f"-{job}-{restart}")  # no lock of a killed start is met again
        assert not Path(compiled).exists()
    assert re.search(r"restart 1\b.*\b20\b", slurm_cluster.logs())  # the first run's log is kept


def test_restarts_have_an_end(slurm_cluster) -> None:
    done = slurm_cluster.run(*WAIT, str(SCRIPT), ACT="sys.exit(75)", HPC_LLM_MAX_REQUEUES="0")
    assert done.returncode == 75
    slurm_cluster.wait_for_state(job_id(done.stdout), "FAILED 0")
    assert "HPC_LLM_MAX_REQUEUES=0" in slurm_cluster.logs()


@pytest.mark.parametrize("number", ["USR1", "USR2"])
def test_signal_before_the_time_limit_saves_and_restarts(slurm_cluster, number: str) -> None:
    # As --signal=USR1@300 does: to the steps, not to the batch shell
    submit = ("sbatch", "--parsable", "-N2", str(SCRIPT))
    job = job_id(slurm_cluster.output(*submit, ACT=STOP_AT_A_SIGNAL))
    slurm_cluster.wait_for(*(f"places/{job}.0.{rank}.json" for rank in (0, 1)))
    slurm_cluster.output("scancel", "-s", number, job)
    slurm_cluster.wait_for_state(job, "COMPLETED 1")
    assert [p["reason"] for p in slurm_cluster.places(job, 0)] == [f"SIG{number}"] * 2
    assert [p["reason"] for p in slurm_cluster.places(job, 1)] == [None] * 2


def test_signal_before_python_listens_is_not_lost_and_kills_nobody(slurm_cluster) -> None:
    folder = slurm_cluster.folder
    (folder / "bin" / "hpc-llm").rename(folder / "bin" / "stub")
    slow = "touch early.$SLURM_PROCID; until [ -e go ]; do sleep 0.05; done; exec stub"
    (folder / "bin" / "hpc-llm").write_text(f'#!/bin/bash\n{slow} "$@"\n')
    (folder / "bin" / "hpc-llm").chmod(0o755)
    submit = ("sbatch", "--parsable", "-N2", str(SCRIPT))
    job = job_id(slurm_cluster.output(*submit, ACT=STOP_AT_A_SIGNAL))
    slurm_cluster.wait_for("early.0", "early.1")
    slurm_cluster.output("scancel", "-s", "USR1", job)
    time.sleep(0.5)  # Slurm sends it meanwhile
    (folder / "go").touch()
    slurm_cluster.wait_for_state(job, "COMPLETED 1")
    assert [p["reason"] for p in slurm_cluster.places(job, 0)] == ["SIGUSR1"] * 2


def test_lost_node_starts_the_job_again(slurm_cluster) -> None:
    act = "if ranks.restart_count == 0: time.sleep(600)"
    job = job_id(slurm_cluster.output("sbatch", "--parsable", "-N2", str(SCRIPT), ACT=act))
    slurm_cluster.wait_for(*(f"places/{job}.0.{rank}.json" for rank in (0, 1)))
    update = ("scontrol", "update", "nodename=node2")
    slurm_cluster.output(*update, "state=down", "reason=test")
    slurm_cluster.run(*update, "state=resume")  # it may have come back by itself
    slurm_cluster.wait_for_state(job, "COMPLETED 1")
    assert [p["rank"] for p in slurm_cluster.places(job, 1)] == [0, 1]


def test_scancel_saves_and_does_not_restart(slurm_cluster) -> None:
    submit = ("sbatch", "--parsable", "-N2", str(SCRIPT))
    job = job_id(slurm_cluster.output(*submit, ACT=STOP_AT_A_SIGNAL))
    slurm_cluster.wait_for(*(f"places/{job}.0.{rank}.json" for rank in (0, 1)))
    slurm_cluster.output("scancel", job)
    slurm_cluster.wait_for_state(job, "CANCELLED 0")
    assert [p["reason"] for p in slurm_cluster.places(job)] == ["SIGTERM"] * 2


def test_one_dead_rank_ends_its_peers(slurm_cluster) -> None:
    act = "barrier(); time.sleep(600) if ranks.is_first else sys.exit(7)"  # run() waits 300 s
    done = slurm_cluster.run(*WAIT, "-N2", str(SCRIPT), ACT=act)
    assert done.returncode == 137  # rank 0 notes SIGTERM and hangs on, so SIGKILL ends it
    slurm_cluster.wait_for_state(job_id(done.stdout), "FAILED 0")


def test_rank_that_is_done_does_not_end_the_others(slurm_cluster) -> None:
    act = "if ranks.is_first: time.sleep(3); place['done'] = True; write()"
    site = {"SLURM_WAIT": "1"}  # as WaitTime=1 in slurm.conf
    job = job_id(slurm_cluster.output(*WAIT, "-N2", str(SCRIPT), ACT=act, **site))
    assert slurm_cluster.places(job)[0]["done"]


def start_adapt(slurm_cluster, *words: str) -> str:
    """Submit the tiny example to two nodes, with the real hpc-llm; return the job id."""
    program = slurm_cluster.folder / "bin" / "hpc-llm"
    program.write_text(f'#!/bin/bash\nexec {sys.executable} -m hpc_llm.app "$@"\n')
    # The nodes' GPUs are pretended ones: the bill counts them, the work runs on CPUs
    overrides = [*TINY, "hardware=a100_sxm_80gb", "train.precision=fp32"]
    overrides += ["tracking=off", "run=slurm", f"runs_dir={slurm_cluster.folder / 'runs'}"]
    # What `make setup` has compiled; nodes without names meet at this machine's address
    variables = {"TORCH_EXTENSIONS_DIR": f"{sys.prefix}/torch_extensions"}
    if not slurm_cluster.named_nodes:
        variables["MASTER_ADDR"] = "127.0.0.1"
    submit = ("sbatch", "--parsable", "-N2", *words, str(SCRIPT), *overrides)
    return job_id(slurm_cluster.output(*submit, **variables))


def test_adapt_on_two_nodes_stopped_once_and_charged_as_slurm_charges_it(slurm_cluster) -> None:
    job = start_adapt(slurm_cluster, "--gpus-per-node=1", "--ntasks-per-node=1")
    ledger = Ledger(slurm_cluster.folder / "runs/slurm/ledger.jsonl")
    wait_until(lambda: any(row.stage == "train/lora" for row in ledger.rows()), slurm_cluster)
    slurm_cluster.output("scancel", "-s", "USR1", job)
    slurm_cluster.wait_for_state(job, "COMPLETED 1")
    summary = json.loads((slurm_cluster.folder / "runs/slurm/summary.json").read_text())
    assert math.isfinite(summary["target_bpb"]["corrected"])
    if not slurm_cluster.accounting:
        return
    command = (sys.executable, "-m", "hpc_llm.app", "ledger", "runs/slurm")
    heads, told, *_ = slurm_cluster.output(*command).splitlines()
    assert heads.split()[6:8] == ["device-hours", "Slurm"]
    own, billed = (float(cell) for cell in told.split()[5:7])
    format_ = "--format=ElapsedRaw,AllocTRES"
    starts = slurm_cluster.output("sacct", "-XnPD", f"--jobs={job}", format_).splitlines()
    seconds = [int(line.split("|")[0]) for line in starts if "gres/gpu=2" in line]
    assert len(seconds) == 2
    assert billed == pytest.approx(2 * sum(seconds) / 3600, rel=0.01)
    # Slurm's clock runs on while the processes of each of the two starts end
    assert billed - 2 * 2 * 5 / 3600 < own <= billed + 2 * 2 * 1 / 3600


def wait_until(condition, slurm_cluster) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, slurm_cluster.logs()
        time.sleep(0.05)

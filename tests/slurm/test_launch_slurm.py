"""`launch=slurm` on a real Slurm: what plan shows, what is submitted, and what is refused."""

import json
import re
import sys
from pathlib import Path

import pytest
from tiny import TINY, records

pytestmark = pytest.mark.slurm

HPC_LLM = (sys.executable, "-m", "hpc_llm.app")
SLURM = ("launch=slurm", "launch.time=20", "launch.chain=false")


def test_plan_shows_the_job_script_and_what_slurm_says(slurm_cluster) -> None:
    nodes = ("cluster=a100_4x8", "cluster.nodes=2", "cluster.devices_per_node=2")
    slurm = ("launch=slurm", "launch.time=20", "launch.cpus_per_task=1", "plan.format=json")
    model = ("model=tinyllama-1.1b", "train.sequence_length=2048")
    ask = (*HPC_LLM, "plan", *model, *nodes, *slurm)
    text, transplant, train, result = json.loads(slurm_cluster.output(*ask, "run=x"))["jobs"]
    assert "#SBATCH --gpus-per-node=2\n" in train["script"]
    assert re.search(
        r"Job \d+ to start at .* on nodes node\[1-2\] in partition main", train["answer"]
    )
    assert "--gpus-per-node" not in text["script"]
    for job in (transplant, result):
        assert "#SBATCH --gpus-per-node=1\n" in job["script"]
        assert re.search(r"Job \d+ to start at .* on nodes node\d in part", job["answer"])
    refused = slurm_cluster.output(*ask[:-1], "launch.partition=nowhere")
    assert "PF-days" in refused
    assert re.search(r"sbatch --test-only: .*\bpartition\b.*\bnowhere\n", refused)
    without = slurm_cluster.output(*ask, PATH="/nowhere")
    assert re.search(r"\bsbatch\b.*\bPATH\b", json.loads(without)["jobs"][0]["answer"])
    assert not (slurm_cluster.folder / "runs").exists()


def test_names_reach_slurm_as_they_are(slurm_cluster) -> None:
    comment = 'it\'s "100 %" \\ $HOME #1 ж'
    program = (
        "import sys; from hpc_llm import config, launch; from pathlib import Path\n"
        "cfg = config.typed(config.compose(sys.argv[1:]))\n"
        f"cfg.launch.options = {{'comment': {comment!r}, 'hold': True, 'requeue': False}}\n"
        "script = launch.job_script(cfg, 'adapt', cfg.folder / 'config.yaml')\n"
        "print(launch.submit(script, Path('job.sbatch')))"
    )
    words = ("experiment=example", "launch=slurm", "run='a; b'", "cluster.nodes=2")
    job = slurm_cluster.output(sys.executable, "-c", program, *words)
    shown = slurm_cluster.output("scontrol", "show", "job", job)
    slurm_cluster.output("scancel", job)
    assert "JobName=adapt-a; b\n" in shown
    assert f"Comment={comment}" in shown
    assert f"StdOut={slurm_cluster.folder}/runs/a; b/slurm-{job}.out" in shown
    assert f"WorkDir={slurm_cluster.folder}\n" in shown
    assert re.search(r"NumNodes=2(-2)? NumCPUs=2 NumTasks=2 ", shown)


def test_adapt_is_submitted_and_a_second_call_has_nothing_to_do(slurm_cluster) -> None:
    adapt = (*HPC_LLM, "adapt", *TINY, "tracking=off", "run=one", "runs_dir='my %j runs'", *SLURM)
    refused = slurm_cluster.run(*adapt, "launch.partition=nowhere")
    assert refused.returncode == 2
    assert re.search(r"launch=slurm: .*\bpartition\b.*\bnowhere;", refused.stdout)
    assert slurm_cluster.output("squeue", "--noheader") == ""

    variables = {"TORCH_EXTENSIONS_DIR": f"{sys.prefix}/torch_extensions"}
    if not slurm_cluster.named_nodes:
        variables["MASTER_ADDR"] = "127.0.0.1"
    said = slurm_cluster.output(*adapt, "cluster.nodes=2", **variables).splitlines()
    job, folder = said[-1], slurm_cluster.folder / "my %j runs" / "one"
    assert f"submitted job {job}" in said[-2]
    while slurm_cluster.state(job).split()[0] in ("PENDING", "RUNNING"):
        slurm_cluster.output("sleep", "1")
    log = (folder / f"slurm-{job}.out").read_text()
    assert slurm_cluster.state(job) == "COMPLETED 0", log
    assert records(folder)[-1] == "report"
    bill = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    assert {row["job"] for row in bill} == {job}
    again = slurm_cluster.output(*adapt, "cluster.nodes=2")
    assert f"{folder.relative_to(slurm_cluster.folder)}: nothing" in again
    assert slurm_cluster.output("squeue", "--noheader") == ""
    assert list(Path(folder).glob("slurm-*.out")) == [folder / f"slurm-{job}.out"]


def test_an_account_that_does_not_exist_is_refused(slurm_cluster) -> None:
    if not slurm_cluster.accounting:
        pytest.skip("mariadb-server and slurmdbd are not installed")
    adapt = (*HPC_LLM, "adapt", *TINY, "tracking=off", *SLURM)
    words = "Invalid account or account/partition combination specified"
    plan = slurm_cluster.output(*adapt, "launch.account=nobody", "plan.only=true")
    assert plan.endswith(f"sbatch --test-only: allocation failure: {words}")
    refused = slurm_cluster.run(*adapt, "launch.account=nobody", "launch.chain=true")
    assert refused.returncode == 2
    assert f"launch=slurm: Batch job submission failed: {words}; " in refused.stdout
    assert "launch.*" in refused.stdout
    assert "sacctmgr" in refused.stdout
    assert slurm_cluster.output("squeue", "--noheader") == ""
    known = slurm_cluster.output(*adapt, "launch.account=lab", "launch.options.hold=true")
    assert slurm_cluster.output("squeue", "--noheader", "--format=%i %a").split() == [
        known.splitlines()[-1],
        "lab",
    ]


def test_the_id_is_found_below_what_a_sites_sbatch_says_besides(slurm_cluster) -> None:
    sbatch, wrapper = slurm_cluster.output("which", "sbatch"), slurm_cluster.folder / "bin/sbatch"
    wrapper.write_text(f'#!/bin/bash\necho "Welcome! 12 nodes are down."\nexec {sbatch} "$@"\n')
    wrapper.chmod(0o755)
    options = ("launch.options.hold=true", "launch.options.quiet=true")
    said = slurm_cluster.output(*HPC_LLM, "adapt", *TINY, "tracking=off", *SLURM, *options)
    (job,) = slurm_cluster.output("squeue", "--noheader", "--format=%i").split()
    assert said.splitlines()[-1] == job


def test_without_sbatch_nothing_is_made(slurm_cluster) -> None:
    done = slurm_cluster.run(*HPC_LLM, "adapt", *SLURM, PATH="/nowhere")
    assert done.returncode == 2
    assert re.search(r"launch=slurm: .*\bPATH\b.*launch=local", done.stdout)
    assert not (slurm_cluster.folder / "runs").exists()

"""The recipe as a chain of jobs on a real Slurm, and the verbs that look after them."""

import json
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tiny import TINY, records

pytestmark = pytest.mark.slurm

HPC_LLM = (sys.executable, "-m", "hpc_llm.app")
NODES = ("launch=slurm", "launch.time=20", "cluster.nodes=2", "tracking=off", "run=one")
HELD = "launch.options.hold=true"

# Two scripts as launch=slurm writes them, with the stub instead of hpc-llm, submitted as a chain
TWO = """
import sys
from itertools import pairwise
from pathlib import Path
from hpc_llm import config, launch
cfg = config.typed(config.compose(["experiment=example", "launch=slurm", *sys.argv[1:]]))
script = launch.job_script(cfg, "adapt", cfg.folder / "config.yaml")
script = script.replace(" hpc-llm adapt ", f" {Path.cwd()}/bin/hpc-llm adapt ")
cfg.folder.mkdir(parents=True)
print(*launch.submit_chain([(cfg.folder / f"{n}.sbatch", script) for n in (1, 2)]))
"""


def submitted(cluster, *overrides: str, **variables: str) -> list[str]:
    """Submit the tiny example; return the ids of its jobs."""
    variables["TORCH_EXTENSIONS_DIR"] = f"{sys.prefix}/torch_extensions"
    if not cluster.named_nodes:
        variables["MASTER_ADDR"] = "127.0.0.1"
    said = cluster.output(*HPC_LLM, "adapt", *TINY, *NODES, *overrides, **variables)
    return [line for line in said.splitlines() if line.isdigit()]


def rows(cluster) -> list[dict]:
    lines = (cluster.folder / "runs/one/jobs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def wait_for_end(cluster, *jobs: str) -> list[str]:
    """Wait until no job is left in the queue; return their states and restarts."""
    cluster.output("timeout", "280", "bash", "-c", "while squeue -h | grep -q .; do sleep .3; done")
    return [cluster.state(job) for job in jobs]


def times(cluster, job: str) -> dict[str, str]:
    shown = cluster.output("scontrol", "show", "job", "--oneliner", job)
    return dict(re.findall(r"(StartTime|EndTime)=(\S+)", shown))


def status(cluster, **variables: str) -> str:
    return cluster.output(*HPC_LLM, "status", "runs/one", **variables)


def test_the_example_is_done_by_a_chain_on_two_nodes(slurm_cluster) -> None:
    jobs = submitted(slurm_cluster)
    assert len(jobs) == 5
    folder = slurm_cluster.folder / "runs" / "one"
    again = slurm_cluster.run(*HPC_LLM, "adapt", *TINY, *NODES)
    assert again.returncode == 2
    assert re.search(r"runs/one: .*hpc-llm cancel \S*runs/one", again.stdout)
    followed = slurm_cluster.output(*HPC_LLM, "logs", "-f", "runs/one")
    assert [slurm_cluster.state(job) for job in jobs] == 5 * ["COMPLETED 0"], followed
    assert records(folder)[-1] == "report"
    parts = ["corpus", "pretrain", "tokenizer+transplant", "train", "result"]
    assert re.findall(r"^==> (\S+), job \d+ <==", followed, re.MULTILINE) == parts
    assert "phi" in followed

    table = [(row["part"], row["job"], row["after"]) for row in rows(slurm_cluster)]
    assert table == [
        (part, job, after)
        for part, job, after in zip(parts, jobs, [[], *([job] for job in jobs)], strict=False)
    ]
    for before, after in pairwise(jobs):
        ended, began = times(slurm_cluster, before), times(slurm_cluster, after)
        assert ended["EndTime"] <= began["StartTime"]
    bill = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    billed = {(row["stage"], row["job"]) for row in bill}
    assert {("corpus", jobs[0]), ("train/lora", jobs[3]), ("report", jobs[4])} <= billed
    for job, count in zip(jobs, "12121", strict=True):
        assert f"NumNodes={count} " in slurm_cluster.output("scontrol", "show", "job", job)

    said = status(slurm_cluster)
    for job, part in zip(jobs, parts, strict=True):
        assert re.search(rf"{job}  {re.escape(part)} +COMPLETED +node", said)
    assert "train/lora: step 12 of 12, loss" in said
    assert re.search(r"spent: \S+ core-hours, \S+ USD", said)
    without = status(slurm_cluster, PATH="/nowhere")
    assert re.search(r"squeue: .*\bPATH\b", without)
    assert re.search(r"train +unknown +- +2 of 2\b", without)
    assert "runs/one: nothing" in slurm_cluster.output(*HPC_LLM, "adapt", *TINY, *NODES)


def test_a_part_that_fails_ends_later_parts(slurm_cluster) -> None:
    text = slurm_cluster.folder / "text.txt"
    text.write_text("one\n")
    jobs = submitted(slurm_cluster, HELD, "corpus.target=text.txt")
    assert "scontrol release" in status(slurm_cluster)
    text.unlink()
    slurm_cluster.output("scontrol", "release", *jobs)
    states = wait_for_end(slurm_cluster, *jobs)
    assert states == ["FAILED 0", *4 * ["CANCELLED 0"]]
    said = status(slurm_cluster)
    assert re.search(rf"{jobs[0]}  corpus .* exit code 2: hpc-llm: corpus.target=", said)
    for job in jobs[1:]:
        assert re.search(rf"{job} .*\bCANCELLED\b.*\bnever\b.*: ", said)  # and why
    assert "text.txt" in slurm_cluster.output(*HPC_LLM, "logs", "runs/one")


def test_a_refused_later_part_leaves_no_job(slurm_cluster) -> None:
    where = "launch.parts.train.partition=nowhere"
    done = slurm_cluster.run(*HPC_LLM, "adapt", *TINY, *NODES, where)
    assert done.returncode == 2
    told = re.search(
        r"4-train: launch=slurm: .*\bpartition\b.*\bnowhere\b.*\bcancelled\D+"
        r"(\d+), (\d+), (\d+)\b",
        done.stdout,
    )
    assert told, done.stdout
    assert slurm_cluster.output("squeue", "--noheader") == ""
    for job in told.groups():
        assert slurm_cluster.state(job) == "CANCELLED 0"
        assert not list(slurm_cluster.folder.glob(f"runs/one/slurm-{job}.out"))
    assert not (slurm_cluster.folder / "runs/one/jobs.jsonl").exists()


def test_a_requeued_job_keeps_later_parts_waiting(slurm_cluster) -> None:
    act = "if ranks.restart_count == 0: raise Stopped('later')"
    said = slurm_cluster.output(sys.executable, "-c", TWO, ACT=act).split()
    one, two = said
    slurm_cluster.wait_for(f"places/{one}.0.0.json")
    slurm_cluster.wait_for_state(one, "PENDING 1")
    assert slurm_cluster.state(two) == "PENDING 0"
    wait_for_end(slurm_cluster)
    assert slurm_cluster.state(one) == "COMPLETED 1"
    assert slurm_cluster.places(two)
    assert times(slurm_cluster, one)["EndTime"] <= times(slurm_cluster, two)["StartTime"]


def test_a_job_that_may_not_be_requeued_any_more_ends_the_chain(slurm_cluster) -> None:
    end = "launch.max_requeues=0"
    one, two = slurm_cluster.output(
        sys.executable, "-c", TWO, end, ACT="raise Stopped('later')"
    ).split()
    assert wait_for_end(slurm_cluster, one, two) == ["FAILED 0", "CANCELLED 0"]


def test_text_goes_to_its_partition_whatever_the_shell_says(slurm_cluster) -> None:
    where = ("launch.partition=main", "launch.cpu_partition=low")
    submitted(slurm_cluster, HELD, *where, SBATCH_PARTITION="high")
    queue = slurm_cluster.output("squeue", "--noheader", "--sort=i", "--format=%j %P")
    slurm_cluster.output(*HPC_LLM, "cancel", "runs/one")
    text = ["corpus-one low", "tokenizer-one low"]
    assert [line for line in queue.splitlines() if line.endswith(" low")] == text
    assert queue.count(" main") == 4


def test_cancel_ends_what_is_left(slurm_cluster) -> None:
    jobs = submitted(slurm_cluster, HELD)
    said = slurm_cluster.output(*HPC_LLM, "cancel", "runs/one")
    assert f"cancelled {', '.join(jobs)}" in said
    assert slurm_cluster.output("squeue", "--noheader") == ""
    assert len(re.findall(r"\bCANCELLED\b.*\bnever\b", status(slurm_cluster))) == 5
    again = slurm_cluster.output(*HPC_LLM, "cancel", "runs/one")
    assert re.search(r"runs/one: .*\bjob$", again)
    refused = slurm_cluster.run(*HPC_LLM, "cancel", "runs/one", PATH="/nowhere")
    assert refused.returncode == 2
    assert re.search(r"hpc-llm: squeue: .*\bPATH\b", refused.stdout)


def test_a_running_part_is_cancelled_for_good(slurm_cluster) -> None:
    one, two = slurm_cluster.output(sys.executable, "-c", TWO, ACT="time.sleep(60)").split()
    slurm_cluster.wait_for(f"places/{one}.0.0.json")
    row = {"job": one, "chain": one, "part": "a", "command": [], "stages": [], "after": []}
    lines = [row, row | {"job": two, "part": "b", "after": [one]}]
    folder = Path(slurm_cluster.folder / "runs/example")
    with (folder / "jobs.jsonl").open("w") as handle:
        for line in lines:
            print(json.dumps(line | {"log": "", "when": "2026-01-01T00:00:00+00:00"}), file=handle)
    (folder / "config.yaml").touch()
    said = slurm_cluster.output(*HPC_LLM, "status", "runs/example")
    assert re.search(rf"{one}  a  RUNNING  node\d +for 0:\d\d of 10:00", said)
    assert re.search(rf"{two}  b  PENDING  - .*\b{one}\b", said)
    assert "spent: nothing" in said
    slurm_cluster.output(*HPC_LLM, "cancel", "runs/example")
    assert wait_for_end(slurm_cluster, one, two) == ["CANCELLED 0", "CANCELLED 0"]


def test_plan_only_shows_what_adapt_would_submit(slurm_cluster) -> None:
    said = slurm_cluster.output(*HPC_LLM, "adapt", *TINY, *NODES, "plan.only=true")
    assert len(re.findall(r"^sbatch --test-only: Job \d+ to start", said, re.MULTILINE)) == 5
    assert "job 4 of 5:" in said
    assert "PF-days" in said
    assert not (slurm_cluster.folder / "runs").exists()
    one = slurm_cluster.output(*HPC_LLM, "corpus", *TINY, *NODES, "plan.only=true")
    assert "hpc-llm corpus --config" in one


def test_a_job_that_waits_runs_the_copy_of_the_program(slurm_cluster) -> None:
    words = ("corpus", *TINY, *NODES, HELD, "launch.snapshot=true")
    said = slurm_cluster.output(*HPC_LLM, *words)
    (job,) = [line for line in said.splitlines() if line.isdigit()]
    code = slurm_cluster.folder / "runs" / "one" / "code" / "hpc_llm"
    assert (code.parent / "COMMIT").read_text().strip()
    with (code / "__init__.py").open("a") as handle:
        handle.write("import sys\nprint('the copy runs', file=sys.stderr)\n")
    slurm_cluster.output("scontrol", "release", job)
    assert wait_for_end(slurm_cluster, job) == ["COMPLETED 0"]
    log = slurm_cluster.folder / "runs" / "one" / f"slurm-{job}.out"
    assert "the copy runs" in log.read_text()
    assert (code.parents[1] / "corpus").is_dir()


def test_what_is_not_done_yet_is_reported_before_a_job_waits(slurm_cluster) -> None:
    done = slurm_cluster.run(*HPC_LLM, "train", "--stages", "train/lora", *TINY, *NODES)
    assert done.returncode == 2
    assert re.search(r"train/lora: .*\btrain/embeddings\b.*hpc-llm train", done.stdout)
    unknown = slurm_cluster.run(*HPC_LLM, "train", "--stages", "train/x", *TINY, *NODES)
    assert re.search(r"--stages=train/x: .*\bcorpus, train/pretrain\b", unknown.stdout)
    assert slurm_cluster.output("squeue", "--noheader") == ""
    assert not (slurm_cluster.folder / "runs").exists()

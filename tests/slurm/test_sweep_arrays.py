"""Sweeps as arrays of jobs on a real Slurm: with a stub in the place of hpc-llm, then with it."""

import json
import re
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from tiny import TINY, records, summary

pytestmark = pytest.mark.slurm

HPC_LLM = (sys.executable, "-m", "hpc_llm.app")
SWEPT = ("-m", "stages.lora.alpha=16,32", "stages.lora.rank=4,8")
# Two arrays: what differs in its options is a job apart
TWO = ("launch=slurm", "launch.time=20", "launch.parts.result.comment=last")
COMMON = ("tracking=off", "run=four", "cache=true")
VALUES = list(product((16, 32), (4, 8)))


def submitted(cluster, *overrides: str, python: str = sys.executable, **variables: str):
    """Submit the sweep of four; return the ids of its arrays."""
    command = (python, "-m", "hpc_llm.app", "adapt", *TINY, *COMMON, *SWEPT, *TWO)
    said = cluster.output(*command, *overrides, **variables)
    return [line for line in said.splitlines() if line.isdigit()]


@pytest.fixture
def python(slurm_cluster) -> str:
    """A Python beside the stub: job scripts take the hpc-llm of the one that submitted them."""
    path = slurm_cluster.folder / "bin" / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "$RUN" {path} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def stub_sweep(slurm_cluster, python):
    """Submit the sweep of four with the stub as its program."""
    program = (
        "import runpy, sys; sys.executable = sys.argv[1]; del sys.argv[:3]\n"
        "runpy.run_module('hpc_llm.app', run_name='__main__', alter_sys=True)"
    )

    def submit(*overrides: str, act: str = "") -> list[str]:
        return submitted(slurm_cluster, *overrides, python=python, RUN=program, ACT=act)

    return submit


def wait_for_end(cluster) -> None:
    cluster.output("timeout", "280", "bash", "-c", "while squeue -h | grep -q .; do sleep .3; done")


def tasks(cluster, array: str) -> list[str]:
    """Return the states and restarts of an array's four tasks."""
    return [cluster.state(f"{array}_{task}") for task in range(4)]


def places(cluster) -> list[dict]:
    """Return what each task of the sweep saw, in the order in which they began."""
    files = sorted((cluster.folder / "places").glob("*.json"), key=lambda f: f.stat().st_mtime)
    found = [json.loads(file.read_text()) for file in files]
    for place in found:
        place["array"] = place["environment"]["SLURM_ARRAY_JOB_ID"]
        place["task"] = int(place["environment"]["SLURM_ARRAY_TASK_ID"])
    return found


def sacct(cluster, array: str) -> dict[str, str]:
    """Return state and exit code of an array's tasks as accounting has them."""
    command = ("sacct", "-X", "-n", "-P", "--format=JobID,State,ExitCode", f"--jobs={array}")
    lines = (line.split("|", 1) for line in cluster.output(*command).splitlines())
    return {job: told.replace("CANCELLED by 0", "CANCELLED") for job, told in lines}


BILLED = """
import sys
from pathlib import Path
from hpc_llm.accounting import cost_report
for number in range(4):
    print(cost_report(Path(f"runs/four/{number}")).slurm_hours)
"""


def assert_billed(cluster, *arrays: str) -> None:
    """Check that Slurm's hours of a trial are those of its own tasks, not of the whole arrays."""
    ended = "until [ $(sacct -nXP -o state -j $0 | grep -c COMPLETED) = 8 ]; do sleep .1; done"
    cluster.output("timeout", "30", "bash", "-c", ended, ",".join(arrays))
    hours = map(float, cluster.output(sys.executable, "-c", BILLED).split())
    for number, found in enumerate(hours):
        jobs = ",".join(f"{array}_{number}" for array in arrays)
        lines = cluster.output("sacct", "-nXP", "-o", "cputimeraw", "-j", jobs).split()
        assert found == pytest.approx(sum(map(int, lines)) / 3600)


def test_each_task_has_its_own_folder_settings_log_and_port(slurm_cluster, stub_sweep) -> None:
    one, two = stub_sweep()
    wait_for_end(slurm_cluster)
    assert tasks(slurm_cluster, one) + tasks(slurm_cluster, two) == 8 * ["COMPLETED 0"]
    sweep = slurm_cluster.folder / "runs" / "four"
    seen = places(slurm_cluster)
    assert sorted((p["array"], p["task"]) for p in seen) == list(product((one, two), range(4)))
    assert len({place["environment"]["TORCH_EXTENSIONS_DIR"] for place in seen}) == 8
    assert len({place["job_id"] for place in seen}) == 8  # the port is made of it
    for place in seen:
        words = place["argv"]
        config = Path(words[words.index("--config") + 1])
        assert config == sweep / str(place["task"]) / "config.yaml"
        lora = yaml.safe_load(config.read_text())["stages"]["lora"]
        assert (lora["alpha"], lora["rank"]) == VALUES[place["task"]]
        last = words[words.index("--stages") + 1].split(",")[-1]
        assert last == ("train/lora" if place["array"] == one else "report")
        assert (config.parent / f"slurm-{place['array']}_{place['task']}.out").exists()
    listed = json.loads((sweep / "sweep.json").read_text())["trials"]
    assert [(t["number"], t["folder"]) for t in listed] == [(n, f"runs/four/{n}") for n in range(4)]
    arrays = [json.loads(line) for line in (sweep / "jobs.jsonl").read_text().splitlines()]
    assert [(array["job"], array["after"]) for array in arrays] == [(one, []), (two, [one])]


def test_a_failed_trial_is_failed_and_stops_its_own_later_part_alone(
    slurm_cluster, stub_sweep
) -> None:
    one, two = stub_sweep(act="if os.environ['SLURM_ARRAY_TASK_ID'] == '1': sys.exit(3)")
    wait_for_end(slurm_cluster)
    assert tasks(slurm_cluster, one) == [
        "COMPLETED 0", "FAILED 0", "COMPLETED 0", "COMPLETED 0",
    ]  # fmt: skip
    assert tasks(slurm_cluster, two) == [
        "COMPLETED 0", "CANCELLED 0", "COMPLETED 0", "COMPLETED 0",
    ]  # fmt: skip
    if slurm_cluster.accounting:  # which lags behind, and alone knows exit codes
        wait = "until sacct -nXP -o jobid,state,exitcode -j $0 | grep '_1|FAILED|3:0'; do :; done"
        slurm_cluster.output("timeout", "30", "bash", "-c", wait, one)
    said = slurm_cluster.output(*HPC_LLM, "sweep", "runs/four")
    assert re.search(r"^ +1 +16 +8 +failed\b.* corpus\b", said, re.MULTILINE)
    assert f"trial 1: job {one}_1, corpus" in said
    if slurm_cluster.accounting:
        assert "FAILED: exit code 3" in said
        done = "COMPLETED|0:0"
        assert sacct(slurm_cluster, one) == {
            f"{one}_{task}": "FAILED|3:0" if task == 1 else done for task in range(4)
        }


def test_no_more_trials_than_the_throttle_at_once(slurm_cluster, stub_sweep) -> None:
    act = """\
began = time.time()
time.sleep(1)
with open(f"{os.environ['PLACES']}/{ranks.job_id}.times", "w") as handle:
    print(began, time.time(), os.environ["SLURM_ARRAY_JOB_ID"], file=handle)
"""

    def most_at_once(array: str) -> int:
        lines = [file.read_text().split() for file in slurm_cluster.folder.glob("places/*.times")]
        spans = [(float(began), float(ended)) for began, ended, job in lines if job == array]
        assert len(spans) == 4
        return max(sum(b <= began < e for b, e in spans) for began, _ in spans)

    one, _ = stub_sweep("launch.throttle=2", act=act)
    assert "%2" in slurm_cluster.output("squeue", "--noheader", "--format=%i")
    wait_for_end(slurm_cluster)
    assert most_at_once(one) == 2
    one, _ = stub_sweep("run=all", act=act)
    wait_for_end(slurm_cluster)
    assert most_at_once(one) > 2


def test_a_requeued_task_is_requeued_alone_and_keeps_its_later_part_waiting(
    slurm_cluster, stub_sweep
) -> None:
    # The task that has the number of the array: by that number all would be requeued
    act = """\
if os.environ["SLURM_JOB_ID"] == os.environ["SLURM_ARRAY_JOB_ID"] and "--stages" in sys.argv:
    if ranks.restart_count == 0 and "train/lora" in sys.argv[-3]:
        raise Stopped("later")
time.sleep(2)
"""
    one, two = stub_sweep(act=act)
    wait_for_end(slurm_cluster)
    restarts = [int(state.removeprefix("COMPLETED ")) for state in tasks(slurm_cluster, one)]
    assert sorted(restarts) == [0, 0, 0, 1]
    again = restarts.index(1)
    assert tasks(slurm_cluster, two) == 4 * ["COMPLETED 0"]
    seen = [(p["array"], p["task"], p["restart_count"]) for p in places(slurm_cluster)]
    assert len(seen) == 9
    assert seen.index((one, again, 1)) < seen.index((two, again, 0))


def test_hydras_launcher_submits_the_same_arrays(slurm_cluster, stub_sweep, monkeypatch) -> None:
    slurm = ("hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=15")
    monkeypatch.setattr(sys.modules[__name__], "TWO", (*slurm, TWO[-1]))
    one, two = stub_sweep("hydra.launcher.array_parallelism=1", act="sys.exit(ranks.restart_count)")
    assert slurm_cluster.output("squeue", "-hro%l", f"-j{one}").split() == 4 * ["15:00"]
    wait_for_end(slurm_cluster)
    assert tasks(slurm_cluster, one) + tasks(slurm_cluster, two) == 8 * ["COMPLETED 0"]


def test_plan_only_shows_the_arrays_once(slurm_cluster) -> None:
    words = ("adapt", *TINY, *COMMON, *SWEPT, *TWO, "launch.throttle=3", "plan.only=true")
    said = slurm_cluster.output(*HPC_LLM, *words)
    assert said.count("# trial ") == said.count("small-llama: ") == 4
    assert said.count("#SBATCH --array=0-3%3") == 2
    assert len(re.findall(r"^sbatch --test-only: Job \d+ to start", said, re.MULTILINE)) == 2
    assert said.index("array 1 of 2:") > said.rindex("# trial ")
    plans = json.loads(slurm_cluster.output(*HPC_LLM, *words, "plan.format=json"))
    assert [len(plan["jobs"]) for plan in plans] == 4 * [2]
    assert not (slurm_cluster.folder / "runs").exists()


def test_one_refused_array_leaves_none(slurm_cluster) -> None:
    where = "launch.parts.result.partition=nowhere"
    done = slurm_cluster.run(*HPC_LLM, "adapt", *TINY, *COMMON, *SWEPT, *TWO, where)
    assert done.returncode == 2
    told = re.search(r"2-result: launch=slurm: invalid partition .*; cancelled (\d+)", done.stdout)
    assert told, done.stdout
    assert slurm_cluster.output("squeue", "--noheader") == ""
    assert not list(slurm_cluster.folder.glob("runs/four/*/slurm-*.out"))
    assert not (slurm_cluster.folder / "runs/four/jobs.jsonl").exists()


def test_one_wrong_trial_submits_nothing(slurm_cluster) -> None:
    wrong = ("train.batch_tokens=1024,1000", "stages.lora.alpha=16")
    done = slurm_cluster.run(*HPC_LLM, "adapt", *TINY, *COMMON, "-m", *wrong, *TWO)
    assert done.returncode == 2
    assert "trial train.batch_tokens=1000: " in done.stdout
    assert slurm_cluster.output("squeue", "--noheader") == ""
    assert not (slurm_cluster.folder / "runs").exists()


def test_trials_that_need_other_nodes_are_other_arrays(slurm_cluster) -> None:
    words = (*TINY, *COMMON, "-m", "launch.options.hold=true", "cluster.nodes=1,2", "seed=1,2")
    said = slurm_cluster.output(*HPC_LLM, "adapt", *words, "launch=slurm", "launch.chain=false")
    one, two = [line for line in said.splitlines() if line.isdigit()]
    queue = slurm_cluster.output("squeue", "--noheader", "--array", "--format=%i %D")
    assert sorted(queue.split("\n")) == [f"{one}_0 1", f"{one}_1 1", f"{two}_2 2", f"{two}_3 2"]
    said = slurm_cluster.output(*HPC_LLM, "status", "runs/four")
    assert len(re.findall(r" corpus \(JobHeldUser\)", said)) == 4
    refused = slurm_cluster.run(*HPC_LLM, "adapt", *words, "launch=slurm", "launch.chain=false")
    assert refused.returncode == 2
    assert re.search(r"runs/four/0: .*hpc-llm cancel \S*runs/four/0", refused.stdout)
    slurm_cluster.output(*HPC_LLM, "cancel", "runs/four/3")
    left = slurm_cluster.output("squeue", "--noheader", "--array", "--format=%i")
    assert sorted(left.split()) == [f"{one}_0", f"{one}_1", f"{two}_2"]
    said = slurm_cluster.output(*HPC_LLM, "cancel", "runs/four")
    assert f"cancelled {one}, {two}" in said
    assert slurm_cluster.output("squeue", "--noheader") == ""
    said = slurm_cluster.output(*HPC_LLM, "sweep", "runs/four")
    assert re.search(r"\bcancelled\b.* corpus\b", said)


def test_a_sweep_of_four_ends_in_its_table(slurm_cluster) -> None:
    variables = {"TORCH_EXTENSIONS_DIR": f"{sys.prefix}/torch_extensions"}
    one, two = submitted(slurm_cluster, "launch.throttle=2", **variables)
    slurm_cluster.output(
        "timeout",
        "280",
        "bash",
        "-c",
        f"while squeue -h -j{one},{two} | grep -q .; do sleep 1; done",
    )
    folder = slurm_cluster.folder / "runs" / "four"
    logs = "\n".join(path.read_text() for path in folder.glob("*/slurm-*.out"))
    assert tasks(slurm_cluster, one) + tasks(slurm_cluster, two) == 8 * ["COMPLETED 0"], logs
    said = slurm_cluster.output(*HPC_LLM, "sweep", "runs/four")
    for number, (alpha, rank) in enumerate(VALUES):
        run = folder / str(number)
        assert records(run)[-1] == "report"
        known = summary(run)
        target, source = (known[f"{side}_bpb"]["corrected"] for side in ("target", "source"))
        row = (
            rf"^ +{number} +{alpha} +{rank} +done(, best)? +corrected +{target:.3f} \([^)]+\) "
            rf"+{source:.3f} \([^)]+\) "
        )
        assert re.search(row, said, re.MULTILINE), said
        bill = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
        assert len({line["job"] for line in bill}) == 2
    assert said.count(", best ") == 1
    assert "4 trials: 4 done" in said
    assert "rank=8" in (folder / "sweep.svg").read_text()
    if slurm_cluster.accounting:
        assert_billed(slurm_cluster, one, two)
    again = slurm_cluster.output(*HPC_LLM, "adapt", *TINY, *COMMON, *SWEPT, *TWO)
    assert "runs/four: nothing" in again


TABLE = """
seeds: [1, 2]
rows:
  - {label: base, overrides: [], point: base}
  - {label: embeddings, overrides: [], point: embeddings}
  - {label: random, overrides: [transplant=random], point: embeddings}
"""


def test_a_table_is_submitted_as_arrays_and_written_when_they_have_ended(slurm_cluster) -> None:
    file = slurm_cluster.folder / "plugin/conf/table/mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(TABLE)
    variables = {
        "TORCH_EXTENSIONS_DIR": f"{sys.prefix}/torch_extensions",
        "HPC_LLM_PLUGINS": str(file.parents[2]),
    }
    words = ("table=mine", *TINY, "run=mine", "cache=true", "tracking=off", *TWO[:2])
    said = slurm_cluster.output(*HPC_LLM, "table", *words, **variables)
    assert "hpc-llm table runs/mine" in said
    wait_for_end(slurm_cluster)
    folder = slurm_cluster.folder / "runs/mine"
    logs = "\n".join(path.read_text() for path in folder.glob("*/slurm-*.out"))
    said = slurm_cluster.output(*HPC_LLM, "table", "runs/mine", **variables)
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert [(row["label"], row["finished"], row["runs"]) for row in rows] == [
        ("base", 2, 2), ("embeddings", 2, 2), ("random", 2, 2),
    ], logs  # fmt: skip
    assert rows[2]["difference"]["bpb/target"]["low"] is not None
    jobs = (folder / "jobs.jsonl").read_bytes()
    slurm_cluster.output(*HPC_LLM, "table", *words, **variables)
    assert (folder / "jobs.jsonl").read_bytes() == jobs  # nothing was submitted again

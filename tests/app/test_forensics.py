"""`rerun.step`, `diff` and the records that they rest on, on real tiny runs."""

import json
import re

import pytest
from tiny import TINY, adapt, hpc_llm

from hpc_llm.rundir import read_jsonl


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two equal runs, one with another seed of the same base model, one of two ranks."""
    runs = tmp_path_factory.mktemp("runs")
    adapt(runs, "run=one")
    adapt(runs, "run=same", "train.log_steps=3")
    adapt(runs, "run=two", "launch.processes=2")
    adapt(runs, "run=rate", "stages.lora.learning_rate=0.004")
    return runs


def steps(folder, stage):
    """The records of a stage: step, batch, chain, loss, gradient norm, applied."""
    lines = [e for e in read_jsonl(folder / "events.jsonl") if e["event"] == "train"]
    return [record for e in lines if e["stage"] == stage for record in e["steps"]]


def test_every_step_leaves_a_record(runs):
    records = steps(runs / "one", "lora")
    assert [record[0] for record in records] == list(range(1, 13))
    assert [record[1] for record in records] == list(range(12))
    assert len({record[2] for record in records}) == 12
    assert all(record[3] > 0 and record[4] > 0 and record[5] for record in records)


def test_equal_runs_have_equal_records_however_often_they_log(runs):
    assert steps(runs / "one", "lora") == steps(runs / "same", "lora")
    said = hpc_llm("diff", str(runs / "one"), str(runs / "same")).stdout
    assert "train.log_steps: 2 -> 3" in said
    assert re.search(r"^lora: [^;]*\b12 steps$", said, re.MULTILINE)


def test_the_chain_of_batches_does_not_depend_on_the_ranks(runs):
    for stage in ("embeddings", "lora"):
        chains = [[r[2] for r in steps(runs / run, stage)] for run in ("one", "two")]
        assert chains[0] == chains[1]


def test_diff_finds_the_first_step_where_runs_part(runs):
    said = hpc_llm("diff", str(runs / "one"), str(runs / "rate")).stdout
    assert "stages.lora.learning_rate: 0.003 -> 0.004" in said
    assert re.search(r"^embeddings: [^;]*\b8 steps$", said, re.MULTILINE)
    first = next(i for i, (a, b) in enumerate(zip(steps(runs / "one", "lora"),
                 steps(runs / "rate", "lora"), strict=True), 1) if a[3] != b[3])  # fmt: skip
    told = rf"^lora: losses\b[^;]* step {first}; [^;]*\([0-9.]+, [0-9.]+\)"  # both losses
    assert re.search(told, said, re.MULTILINE)


def test_diff_of_what_is_no_run_is_refused(runs, tmp_path):
    for words in ([str(runs / "one")], [str(runs / "one"), str(tmp_path)]):
        done = hpc_llm("diff", *words, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("hpc-llm: ")


def replay(runs, *words, **options):
    return hpc_llm("train", *TINY, f"runs_dir={runs}", *words, **options)


def test_a_rerun_step_has_the_same_bits_and_shows_its_documents(runs):
    before = (runs / "one/events.jsonl").read_bytes(), (runs / "one/record.jsonl").read_bytes()
    done = replay(runs, "run=one", "rerun.step=5", "rerun.show=true")
    assert re.search(r"^lora\W+step 5\b.* step 0\b", done.stdout, re.MULTILINE)
    assert re.search(r"^batch 4: .*\(chain (\w+), \w+ \1\)", done.stdout, re.MULTILINE)
    assert re.search(r"^loss (\S+), \w+ \1: ", done.stdout, re.MULTILINE)
    assert any("а" <= letter <= "я" for letter in done.stdout)  # the documents are Russian
    after = (runs / "one/events.jsonl").read_bytes(), (runs / "one/record.jsonl").read_bytes()
    assert after == before
    settings = (runs / "one/config.yaml").read_bytes()
    words = [f"runs_dir={runs}", "run=one", "rerun.step=3", "rerun.stage=embeddings"]
    again = hpc_llm("train", *words, "launch.processes=2")  # it knows its settings itself
    assert re.search(r"^embeddings\W+step 3\b", again.stdout, re.MULTILINE)
    assert (runs / "one/config.yaml").read_bytes() == settings


def test_the_step_that_ended_a_run_can_be_looked_at(runs):
    done = adapt(runs, "run=one", "stages.lora.learning_rate=1e10", "run=broken", check=False)
    assert done.returncode == 1
    assert "checkpoint.changed=restart" in done.stderr
    assert "guards.not_finite=skip" in done.stderr
    step = steps(runs / "broken", "lora")[-1][0]
    shown = replay(runs, "run=broken", f"rerun.step={step}", "rerun.show=true")
    assert "tokens: " in shown.stdout


def test_a_step_that_differs_is_reported(runs):
    events = runs / "same/events.jsonl"
    lines = events.read_text().splitlines()
    for number, line in enumerate(lines):
        event = json.loads(line)
        if event["event"] == "train" and event["stage"] == "lora" and event["step"] == 6:
            event["steps"][1][3] *= 1.5
            del event["checksum"]  # as a line of an earlier version
            lines[number] = json.dumps(event)
    events.write_text("\n".join(lines) + "\n")
    done = replay(runs, "run=same", "train.log_steps=3", "rerun.step=5", check=False)
    assert done.returncode == 1
    assert "relative difference 3.3e-01" in done.stdout


def test_a_step_that_was_never_made_is_refused(runs):
    for words, told in (
        (["rerun.step=99"], "rerun.step=99: .*events.jsonl .*lora"),
        (["rerun.step=0"], "rerun.step=0: .*1"),
        (["rerun.step=1", "rerun.stage=full"], "rerun.stage=full: .*embeddings, lora"),
    ):
        done = replay(runs, "run=one", *words, check=False)
        assert done.returncode == 2
        assert re.search(told, done.stderr)

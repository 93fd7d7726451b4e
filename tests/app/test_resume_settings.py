"""An interrupted stage from the outside: resumed, refused with other settings, restarted."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tiny import TINY, adapt

from hpc_llm.accounting import Ledger

EXACT = ("tokens", "bytes", "flops", "pf_days")
GROWING = ("wall_seconds", "money")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(runs):
    adapt(runs, "run=whole")
    return runs / "whole"


@pytest.fixture(scope="module")
def interrupted(runs):
    """A run that was stopped in its last training stage, with some checkpoints behind it."""
    folder = runs / "interrupted"
    start_and_stop(folder, [f"runs_dir={runs}", f"run={folder.name}"], "[3-9]")
    return folder


def start_and_stop(folder, words, steps):
    """Stop a run when LoRA has a checkpoint of one of `steps`; return what it said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", "adapt", *TINY, *words, "checkpoint.minutes=1e-9"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(folder.glob(f"train/lora/checkpoints/step-0000000{steps}")):
        assert time.monotonic() < deadline, "waited in vain"
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    return said


@pytest.fixture
def copy(interrupted, runs, request):
    folder = runs / request.node.name.replace("[", "-").replace("]", "")
    shutil.copytree(interrupted, folder)
    return folder


def events(folder, stage="lora"):
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "train" and line["stage"] == stage]


def everything(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def model(folder):
    return hashlib.sha256((folder / "model/model.safetensors").read_bytes()).hexdigest()


def test_rate_and_counters_continue_as_if_nothing_had_happened(runs, whole, copy):
    done = adapt(runs, f"run={copy.name}", "checkpoint.keep=5")
    assert "lora: resum" in done.stderr
    expected, found = events(whole), events(copy)
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for before, after in zip(expected, found, strict=True):
        assert {key: after[key] for key in EXACT} == {key: before[key] for key in EXACT}
        for metric in ("train/loss", "train/learning_rate"):
            assert after["metrics"][metric] == before["metrics"][metric], metric
    for key in GROWING:
        values = [line[key] for line in found]
        assert values == sorted(values)
    assert sum("perf/checkpoint_stall_seconds" in line["metrics"] for line in found) > 1
    totals = Ledger(copy / "ledger.jsonl").totals("train/lora")
    done = json.loads((copy / "train/lora/done.json").read_text())
    assert totals.spent.flops == totals.useful.flops == done["flops"]
    assert totals.useful.tokens == done["tokens"]
    assert done["steps"] == 12
    records = [record for line in found for record in line["steps"]]
    assert records == [record for line in expected for record in line["steps"]]
    assert model(copy) == model(whole)
    assert not (copy / "train/lora/checkpoints").exists()


def test_other_settings_are_refused_before_anything_is_touched(runs, copy):
    before = everything(copy)
    words = [f"run={copy.name}", "stages.lora.learning_rate=0.004", "stages.lora.rank=4", "seed=2"]
    done = adapt(runs, *words, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("hpc-llm: ")
    for change in ("seed: ", "learning_rate: 0.003 -> 0.004", "stages.lora.rank: "):
        assert change in line
    assert "checkpoint.changed=restart" in line
    assert everything(copy) == before
    assert adapt(runs, *words, "launch.processes=2", check=False).returncode == 2
    assert everything(copy) == before


def test_an_earlier_stage_that_changes_is_reported_with_the_interrupted_one(runs, copy):
    done = adapt(runs, f"run={copy.name}", "stages.embeddings.steps=9", check=False)
    assert done.returncode == 2
    assert "train/lora/checkpoints" in done.stderr
    assert "stages.embeddings.steps: 8 -> 9" in done.stderr


def test_asked_to_it_restarts_and_keeps_the_earlier_checkpoints(runs, copy):
    names = [path.name for path in copy.glob("train/lora/checkpoints/step-*")]
    words = ["stages.lora.learning_rate=0.004", "checkpoint.changed=restart"]
    done = adapt(runs, f"run={copy.name}", *words)
    assert "stages.lora.learning_rate: 0.003 -> 0.004" in done.stderr
    kept = copy / "superseded" / "train-lora-checkpoints.1"
    assert sorted(path.name for path in kept.glob("step-*")) == sorted(names)
    assert [line["step"] for line in events(copy)][-6:] == [2, 4, 6, 8, 10, 12]
    totals = Ledger(copy / "ledger.jsonl").totals("train/lora")
    assert totals.useful.flops < totals.spent.flops
    assert totals.useful.flops == json.loads((copy / "train/lora/done.json").read_text())["flops"]


def test_a_finished_stage_that_is_rerun_resumes_when_interrupted(runs, whole):
    folder = runs / "again"
    shutil.copytree(whole, folder)
    words = [f"run={folder.name}", "stages.lora.steps=24", "stages.lora.max_epochs=99"]
    stopped = start_and_stop(folder, [f"runs_dir={runs}", *words], "[3-9]")
    assert re.search(r"train/lora: .*superseded/", stopped)
    saved = len(list(folder.glob("superseded/*")))
    done = adapt(runs, *words)
    assert "lora: resum" in done.stderr
    assert "superseded" not in done.stderr.split("lora: resum")[0]
    assert len(list(folder.glob("superseded/train-lora*"))) == 1
    assert saved == 1

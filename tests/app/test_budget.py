"""The bill of real runs: the budget that ends one, what a killed one has spent, the forecast."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time

import pytest
from tiny import TINY, adapt, hpc_llm

from hpc_llm.accounting import Ledger
from hpc_llm.errors import EXIT_BUDGET

LORA = ["stages.lora.steps=60", "stages.lora.max_epochs=100"]
ROUBLES = ["budget.currency=RUB", "budget.rates.RUB=100"]
ENOUGH = 2e-10  # PF-days: pretraining and embeddings take 0.5e-10, LoRA 3.3e-10


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def timed(runs):
    """A run that nothing ends: its folder, what it said and its wall time."""
    began = time.time()
    done = adapt(runs, "run=whole", *LORA, *ROUBLES)
    return runs / "whole", done.stderr, time.time() - began


@pytest.fixture(scope="module")
def whole(timed):
    return timed[0]


def model(folder):
    return hashlib.sha256((folder / "model/model.safetensors").read_bytes()).hexdigest()


def rows(folder, **wanted):
    found = Ledger(folder / "ledger.jsonl").rows()
    return [row for row in found if all(getattr(row, k) == v for k, v in wanted.items())]


def train_metrics(folder):
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [e["metrics"] for e in map(json.loads, lines) if e["event"] == "train"]


def ended_by_its_budget(runs, *words):
    return adapt(runs, *words, *LORA, f"budget.pf_days={ENOUGH}", check=False)


def test_the_budget_ends_a_run_and_a_larger_one_continues(runs, whole):
    folder = runs / "ends"
    stopped = ended_by_its_budget(runs, "run=ends")
    assert stopped.returncode == EXIT_BUDGET, stopped.stderr[-2000:]
    assert "hpc-llm: budget.pf_days=2e-10: 2.0" in stopped.stderr
    for share in ("5", "8"):  # the warnings on the way
        assert re.search(rf"budget\.pf_days: {share}.% of 2e-10 spent", stopped.stderr)
    spent = Ledger(folder / "ledger.jsonl").totals().spent.flops
    assert ENOUGH * 8.64e19 <= spent < 1.1 * ENOUGH * 8.64e19
    assert len(list(folder.glob("train/lora/checkpoints/step-*"))) == 1
    again = ended_by_its_budget(runs, "run=ends")
    assert again.returncode == EXIT_BUDGET
    assert not rows(folder, stage="train/lora", reason="resume")  # not even begun
    adapt(runs, "run=ends", *LORA, "budget.pf_days=1")
    assert rows(folder, stage="train/lora", reason="resume")
    flops = Ledger(folder / "ledger.jsonl").totals("train/lora")
    assert flops.spent.flops == flops.useful.flops  # saved at the boundary: nothing done twice
    assert model(folder) == model(whole)


def test_two_ranks_end_together_and_a_lost_ledger_is_noticed(runs):
    words = ["run=two", "launch.processes=2"]
    assert ended_by_its_budget(runs, *words).returncode == EXIT_BUDGET
    (runs / "two/ledger.jsonl").unlink()
    done = adapt(runs, *words, *LORA)
    assert re.search(r"train/lora: .*\bledger\b.* FLOPs", done.stderr)
    stage = json.loads((runs / "two/train/lora/done.json").read_text())
    useful = Ledger(runs / "two/ledger.jsonl").totals("train/lora").useful
    assert useful.flops == stage["flops"]
    assert useful.tokens == stage["tokens"]


def test_a_budget_in_money_needs_a_price_and_one_in_gpu_hours_a_gpu(runs):
    words = ["run=refused", "hardware.price_low=null", "hardware.price_high=null"]
    refused = adapt(runs, *words, "budget.money=5", check=False)
    assert refused.returncode == 2
    assert re.search(r"budget\.money=5: .*hardware\.price_low", refused.stderr)
    refused = adapt(runs, "run=refused", "budget.gpu_hours=5", check=False)
    assert refused.returncode == 2
    assert re.search(r"budget\.gpu_hours=5: hardware=.*hardware=NAME", refused.stderr)


def test_every_log_line_has_cost_and_utilisation(whole):
    last = train_metrics(whole)[-1]
    assert {"cost/flops", "cost/pf_days", "cost/device_hours", "cost/gpu_hours", "cost/money",
            "perf/mfu_exact", "perf/mfu_6n", "perf/hfu", "perf/tokens_per_second",
            "perf/bytes_per_second"} <= set(last)  # fmt: skip
    assert 0 < last["perf/mfu_exact"] < last["perf/hfu"]
    assert last["cost/pf_days"] == pytest.approx(last["cost/flops"] / 8.64e19)
    spent = Ledger(whole / "ledger.jsonl").totals().spent
    assert last["cost/flops"] == spent.flops


def test_the_rows_of_a_start_are_its_wall_time(timed):
    folder, _, wall = timed
    billed = sum(row.seconds for row in rows(folder))
    # the kernel counts starts of processes from a boot time in whole seconds
    assert 0.8 * wall - 1 < billed <= wall + 1


def test_after_50_steps_the_rest_is_projected_and_the_ledger_shows_its_error(timed):
    folder, said, _ = timed
    assert re.search(r"lora: \D*\b50 \D*\d:\d\d", said)
    (row,) = rows(folder, reason="projection")
    assert row.stage == "train/lora"
    assert row.projected_seconds > 0
    metrics = train_metrics(folder)[-1]
    assert metrics["cost/hours_left"] == 0
    assert metrics["cost/money_at_end"] == pytest.approx(metrics["cost/money"])
    told = hpc_llm("ledger", str(folder)).stdout.splitlines()
    assert told[0].split()[-1] == "measured"
    assert told[1].split()[-1].startswith("x")


def test_a_killed_run_is_charged_for_all_it_did_and_counts_nothing_twice(runs, whole):
    words = ["adapt", *TINY, *LORA, f"runs_dir={runs}", "run=killed"]
    words += ["train.log_steps=7", "checkpoint.minutes=1e-9"]
    folder = runs / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_llm.app", *words], stderr=subprocess.DEVNULL
    )
    deadline = time.time() + 120
    while time.time() < deadline and not rows(folder, stage="train/lora", step=16):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    hpc_llm(*words)
    (resumed,) = rows(folder, stage="train/lora", reason="resume")
    assert resumed.step >= 15  # rows are written with each checkpoint, not only with log lines
    assert resumed.flops == 0  # the ledger held all that the checkpoint rests on
    stage = json.loads((folder / "train/lora/done.json").read_text())
    useful = Ledger(folder / "ledger.jsonl").totals("train/lora").useful
    assert (useful.flops, useful.tokens) == (stage["flops"], stage["tokens"])
    assert model(folder) == model(whole)


def test_money_is_reported_in_the_currency_of_the_budget(runs, whole):
    told = json.loads((whole / "summary.json").read_text())["money"]
    assert told["currency"] == "RUB"
    spent = Ledger(whole / "ledger.jsonl").totals().spent
    assert told["amount"] == pytest.approx(spent.device_hours * 4.25, rel=0.3)
    assert "RUB" in hpc_llm("ledger", str(whole)).stdout
    refused = adapt(runs, "run=refused", "budget.currency=CHF", check=False)
    assert refused.returncode == 2
    assert re.search(r"currency=CHF: .*budget\.rates\.CHF=", refused.stderr)

"""Cost accounting of a running run: devices, clock, measured energy, pace of the rest."""

import os
import time
from types import SimpleNamespace

import pytest

from hpc_llm.accounting import EnergyCounter, Ledger, LedgerRow, cost_report
from hpc_llm.config import compose, typed, write
from hpc_llm.distributed import Ranks
from hpc_llm.pipeline.account import Account, allocated_devices
from hpc_llm.scheduler import job_start
from hpc_llm.stages.forecast import Pace

GPUS = Ranks(world_size=4, local_world_size=2, master_port=12345)


def account(folder, *overrides, segment="a"):
    cfg = typed(compose(["experiment=example", *overrides]))
    return Account(cfg, folder / "ledger.jsonl", Ranks(), segment)


def test_devices_are_those_that_slurm_bills():
    slurm = {"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_CPUS_ON_NODE": "48"}
    assert allocated_devices("gpu", GPUS, slurm) == 8  # four of them idle, and billed
    assert allocated_devices("cpu", GPUS, slurm) == 96
    assert allocated_devices("gpu", GPUS, {}) == 4
    no_gpu = {"SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": ""}
    assert allocated_devices("gpu", Ranks(), no_gpu) == 0  # the corpus of a chain, on cores
    assert allocated_devices("cpu", GPUS, {}) == 2 * len(os.sched_getaffinity(0))


def test_the_first_row_begins_with_the_process_and_the_others_follow_without_a_gap(tmp_path):
    import psutil

    opened = account(tmp_path)
    rows = [opened.add("start", reason="start")]
    time.sleep(0.05)
    rows.append(opened.add("lora", step=1, reason="log"))
    began = rows[-1].time - sum(row.seconds for row in rows)
    assert began == pytest.approx(psutil.Process().create_time(), abs=0.02)
    assert rows[1].seconds >= 0.05


@pytest.mark.parametrize(("step", "since"), [("0", 1000), ("1", None)])
def test_only_the_first_step_of_a_job_is_charged_from_its_start(tmp_path, monkeypatch, step, since):
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(int(time.time()) - 1_000_000))
    monkeypatch.setenv("SLURM_STEP_ID", step)
    seconds = account(tmp_path).add("start", reason="start").seconds
    assert (seconds >= 1_000_000) == (since is not None)


def test_no_slurm_knows_no_start():
    assert job_start({}) is None
    assert job_start({"SLURM_JOB_ID": "1", "PATH": ""}) is None


def test_what_earlier_starts_spent_counts_towards_the_budget(tmp_path):
    row = LedgerRow(run="r", stage="train/lora", segment="old", step=5, flops=10**18, seconds=3600)
    Ledger(tmp_path / "ledger.jsonl").append(row)
    enough = account(tmp_path, f"budget.pf_days={2e18 / 8.64e19}")
    assert enough.over_budget() is None
    assert enough.over_budget(more_flops=10**18) is not None
    assert "budget.money=0.01" in account(tmp_path, "budget.money=0.01").over_budget()


def test_the_found_gpu_gives_its_prices_unless_the_configuration_names_one(tmp_path):
    found = account(tmp_path)
    found.found("NVIDIA H200", None)
    assert (found.hardware.name, found.hardware.kind) == ("H200-SXM-141GB", "gpu")
    assert found.add("start").device == "H200-SXM-141GB"
    named = account(tmp_path, "hardware=a100_sxm_80gb")
    named.found("NVIDIA H200", None)
    assert named.hardware.name == "A100-SXM-80GB"
    assert named.add("start").device is None
    unknown = account(tmp_path)
    unknown.found("Brand New 9000", None)
    assert unknown.hardware.kind == "cpu"


def test_the_ledger_verb_takes_the_device_that_was_found(tmp_path):
    write(typed(compose(["experiment=example"])), tmp_path / "config.yaml")
    found = account(tmp_path)
    found.found("NVIDIA H200", None)
    found.add("start")
    report = cost_report(tmp_path)
    assert report.hardware.name == "H200-SXM-141GB"
    assert report.energy_source == "model"


def test_measured_energy_takes_the_place_of_the_model(tmp_path, monkeypatch):
    millijoules = iter([1_000_000, 4_600_000, 4_700_000, 100])
    driver = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(millijoules),
    )
    monkeypatch.setitem(__import__("sys").modules, "pynvml", driver)
    counter = EnergyCounter("abc")
    opened = account(tmp_path, "hardware=h200_sxm")
    opened.measured(counter.joules())
    assert opened.add("lora", step=1, reason="log").joules == 3600
    assert opened.add("lora", step=1, reason="save").joules == 0  # in the next reading
    opened.measured(counter.joules())
    assert opened.add("lora", step=2, reason="log").joules == 100
    assert opened.spent.energy_kwh(None) == pytest.approx(3700 / 3.6e6)
    assert counter.joules() == 0  # the driver was reloaded


def test_without_a_driver_nothing_is_measured():
    assert EnergyCounter(None).joules() is None
    assert EnergyCounter("GPU-00000000-0000-0000-0000-000000000000").joules() is None


def paced(*marks, steps=200, later=0):
    pace = Pace(steps=steps, step_flops=10, later_flops=later)
    for step, clock in marks:
        pace.mark(step, clock)
    return pace


def test_nothing_is_projected_before_50_steps():
    assert paced((0, 0.0), (40, 40.0)).rest() is None
    assert paced((100, 0.0), (140, 40.0)).rest() is None  # 40 since the resumption


def test_the_rest_is_by_the_rates_measured_without_the_warm_up():
    pace = paced((0, 0.0), (10, 500.0), (30, 520.0), (50, 560.0))
    rest = pace.rest()
    assert (rest.low, rest.mid, rest.high) == (150 * 1.0, 150 * 1.5, 150 * 2.0)


def test_later_stages_are_projected_by_their_flops():
    marks = ((0, 0.0), (10, 10.0), (60, 60.0))
    assert paced(*marks, later=500).rest().mid == 140 + 50
    assert paced(*marks, later=500).stage_rest().mid == 140

"""Time, money and energy against hand arithmetic and published runs."""

from dataclasses import replace

import pytest

from hpc_llm.accounting import (
    Architecture,
    Machine,
    Method,
    device,
    pf_days,
    project,
    step_flops,
    utilisation_metrics,
)
from hpc_llm.accounting.hardware import cluster_catalogue
from hpc_llm.accounting.projection import project_flops

SOLAR = Architecture(
    hidden_size=4096, num_layers=48, num_heads=32, num_kv_heads=8, ffn_size=14336, vocab_size=32000
)


@pytest.fixture
def machine() -> Machine:
    cluster = replace(cluster_catalogue()["a100_4x8"], carbon_g_per_kwh=441.0)
    return Machine(hardware=device("a100_sxm_80gb"), cluster=cluster, precision="bf16")


def test_hours_money_energy_and_carbon_by_hand(machine: Machine) -> None:
    result = project_flops(10**22, machine)
    hours = 1e22 / (32 * 312e12 * 0.39 * 0.8) / 3600
    assert result.high.hours == pytest.approx(hours)
    assert result.high.device_hours == pytest.approx(32 * hours)
    assert result.high.money == pytest.approx(32 * hours * 3.0)
    assert result.high.energy_kwh == pytest.approx(32 * hours * 0.4)
    assert result.high.co2_kg == pytest.approx(32 * hours * 0.4 * 0.441)
    assert result.low.hours == pytest.approx(hours * 0.39 / 0.64)
    assert result.low.money < result.mid.money < result.high.money


def test_43_days_on_512_a100_is_52_9_percent_of_the_peak_at_6nd() -> None:
    # GPT-3 by Narayanan et al. 2021: N = 174.6e9, D = 300e9, 6 N D = 3640 PF-days
    cluster = replace(cluster_catalogue()["a100_4x8"], nodes=64, goodput=1.0)
    a100 = replace(device("a100_sxm_80gb"), utilisation_low=0.529, utilisation_high=0.529)
    machine = Machine(hardware=a100, cluster=cluster, precision="bf16")
    flops = 6 * 174_600 * 10**6 * 300 * 10**9
    result = project_flops(flops, machine)
    assert result.mid.hours / 24 == pytest.approx(43, rel=0.005)
    assert result.mid.device_hours == pytest.approx(528_384, rel=0.005)


def test_twenty_billion_tokens_on_solar_with_recomputation(machine: Machine) -> None:
    tokens = 20_000_000_000
    step = step_flops(SOLAR, Method.full(recompute=True), 1, 4096)
    assert pf_days(step.model * tokens / 4096) == pytest.approx(16.96, abs=0.005)
    result = project(SOLAR, Method.full(recompute=True), tokens, machine, 4096)
    assert pf_days(result.flops) == pytest.approx(21.25, abs=0.005)


def test_what_is_not_known_stays_none(machine: Machine) -> None:
    bare = replace(machine.hardware, utilisation_low=None, utilisation_high=None, watts=None)
    result = project_flops(10**20, replace(machine, hardware=bare))
    assert result.mid.hours is result.mid.money is result.mid.energy_kwh is None
    free = replace(machine.hardware, price_low=None, price_high=None)
    result = project_flops(10**20, replace(machine, hardware=free))
    assert result.mid.money is None
    assert result.mid.hours is not None


def test_twice_the_devices_take_half_the_hours_and_the_same_money(machine: Machine) -> None:
    double = replace(machine, cluster=replace(machine.cluster, nodes=8))
    one, two = project_flops(10**21, machine), project_flops(10**21, double)
    assert two.mid.hours == pytest.approx(one.mid.hours / 2)
    assert two.mid.money == pytest.approx(one.mid.money)


def test_utilisation_by_each_convention(machine: Machine) -> None:
    step = step_flops(SOLAR, Method.full(recompute=True), 8, 4096)
    seconds = step.model / machine.flops_per_second  # as fast as the peak
    metrics = utilisation_metrics(
        seconds,
        machine.flops_per_second,
        exact=step.model,
        six_n=6 * 10_731_524_096 * 8 * 4096,
        hardware=step.total,
    )
    assert metrics["perf/mfu_exact"] == pytest.approx(1)
    assert metrics["perf/mfu_6n"] == pytest.approx(64.389 / 73.26, abs=1e-3)
    assert metrics["perf/hfu"] == pytest.approx(21.25 / 16.96, abs=1e-3)

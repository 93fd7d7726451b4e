"""Costs of a configuration: with the network, suggestions that fit, and the budget."""

import csv
import io
import json
from functools import cache
from pathlib import Path

import pytest
from tiny import stages

from hpc_llm.accounting import pf_days
from hpc_llm.config import compose, typed
from hpc_llm.planning import Plan, make_plan, render_plan

SOLAR = ("model=solar-10.7b", "cluster=a100_4x8", "plan.tokens=20_000_000_000")
MIXTRAL = ("model=mixtral-8x7b", "cluster=h100_4x8")
FULL = ("recipe=end_to_end", "stages.full.steps=1000")


@cache
def plan(*overrides: str) -> Plan:
    return make_plan(typed(compose(list(overrides))))


OVERLAPS = {"null": (1, 1, 0.5), "true": (1, 1, 0.5), "false": (0, 0, 0)}


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_the_network_is_in_hours_money_and_energy_by_hand(overlap: str) -> None:
    slow = ("zero.stage=3", "cluster.link_gb_per_second=1", f"zero.overlap={overlap}")
    row = plan(*SOLAR, *FULL, *slow).rows[0]
    steps = 20_000_000_000 / 2**20
    sent = 2 * 3 * row.parameters * 3 / 4 * 8  # bf16; twice weights, gradients; 8 micro-steps
    network = steps * sent / 1e9 / 0.8 / 3600
    assert row.network_hours == pytest.approx(network)
    ends = zip(("low", "mid", "high"), (0.64, 0.515, 0.39), OVERLAPS[overlap], strict=True)
    for end, utilisation, hidden in ends:
        computing = row.projection.flops / (32 * 312e12 * utilisation * 0.8) / 3600
        hours = computing + network - hidden * min(computing, network)
        if end == "mid":
            assert row.network_share == pytest.approx(network / computing)
            assert row.exposed_share == pytest.approx(hours / computing - 1)
        estimate = getattr(row.projection, end)
        assert estimate.hours == pytest.approx(hours)
        assert estimate.device_hours == pytest.approx(32 * hours)
        assert estimate.energy_kwh == pytest.approx(32 * hours * 0.4)
    assert row.projection.mid.money == pytest.approx(row.projection.mid.device_hours * 1.9)


def test_below_stage_3_and_on_a_cpu_nothing_is_hidden() -> None:
    for words in (("zero.stage=2",), ("zero.stage=3", "hardware=cpu", "train.precision=fp32")):
        (row,) = plan(*SOLAR, *FULL, *words, "cluster.link_gb_per_second=1").rows
        assert row.exposed_share == row.network_share
        assert row.exposed_share


def test_gathers_inside_a_node_leave_trained_weights_and_gradients_to_the_network() -> None:
    """32 devices on 8 nodes; 8 gradient accumulation steps, each with two gathers."""
    words = ("model=llama-3.1-70b", "cluster=leonardo", "zero=stage3")
    without, inside = plan(*words).rows[0], plan(*words, "zero.node_partition=true").rows[0]
    total, trained = inside.parameters, inside.trainable
    assert without.traffic.between == pytest.approx(2 * (8 * 2 * total + 8 * trained) * 7 / 8)
    assert inside.traffic.between == pytest.approx(2 * (trained + 8 * trained) * 7 / 8)
    of_all = [
        31 * (8 * 2 * total + 8 * trained),
        31 * 9 * trained + 32 * 3 / 4 * (16 * total - trained),
    ]
    for row, received in zip((without, inside), of_all, strict=True):
        assert sum(row.traffic) == pytest.approx(2 * received / 8)
    assert inside.memory.total - without.memory.total == 2 * -(-total // 4)
    alone = plan(*words, "zero.node_partition=true", "cluster.nodes=1")
    assert "zero.node_partition=true" in alone.warnings[0]
    assert not plan(*words, "zero.node_partition=true").warnings


def test_a_slow_network_is_suggested_to_stay_inside_nodes() -> None:
    words = ("model=llama-3.1-70b", "cluster=leonardo", "cluster.link_gb_per_second=1.25")
    assert "zero.node_partition=true" in plan(*words).suggestions[0].overrides
    assert "node_partition" not in plan(*words, "cluster.nodes=1").suggestions[0].overrides


def test_an_unknown_network_is_excluded_and_reported() -> None:
    overrides = (*SOLAR, *FULL, "zero.stage=3", "cluster.link_gb_per_second=null")
    result, alone = plan(*overrides), plan(*SOLAR, *FULL, "cluster.link_gb_per_second=1e12")
    assert result.rows[0].network_hours is None
    assert result.total.projection.mid.hours == pytest.approx(alone.total.projection.mid.hours)
    assert "without the network between nodes" in render_plan(result)
    assert "zero.stage=3" in result.warnings[0]
    assert "without the network between nodes" not in render_plan(alone)


@pytest.mark.parametrize("overrides", [MIXTRAL, (*SOLAR, *FULL)], ids=["mixtral", "solar"])
def test_a_suggestion_costs_what_its_plan_costs(overrides: tuple[str, ...]) -> None:
    ways = plan(*overrides).suggestions
    assert ways
    for way in ways:
        mid = plan(*overrides, *way.overrides.split()).total.projection.mid
        assert (way.hours, way.device_hours, way.money) == pytest.approx(
            (mid.hours, mid.device_hours, mid.money)
        )


def test_json_csv_and_table_have_the_network_too() -> None:
    result = plan(*MIXTRAL, "zero.stage=3")
    mid = result.total.projection.mid
    data = json.loads(render_plan(result, "json"))
    assert data["total"]["projection"]["mid"]["energy_kwh"] == mid.energy_kwh
    assert data["total"]["network_hours"] == pytest.approx(
        sum(row.network_hours or 0 for row in result.rows)
    )
    (*_, last) = csv.DictReader(io.StringIO(render_plan(result, "csv")))
    assert float(last["money_mid"]) == mid.money
    assert f" / {mid.device_hours:,.0f} / " in render_plan(result)


def test_the_search_raises_the_micro_batch_where_that_saves_traffic() -> None:
    large = ("model=llama-3.1-405b", "cluster=a100_4x8", "cluster.link_gb_per_second=12.5")
    first = plan(*large, "cluster.nodes=16").suggestions[0]  # no node holds a second copy of it
    assert first.nodes == 16
    assert "train.micro_batch_tokens=" in first.overrides
    small = plan(*large, "cluster.nodes=16", "zero.stage=3", "train.recompute=true")
    assert first.hours < 0.95 * small.total.projection.mid.hours


def test_the_search_leaves_the_micro_batch_alone_where_it_saves_nothing() -> None:
    for way in plan("model=solar-10.7b", "cluster=a100_4x8", *FULL).suggestions:
        assert "zero.stage=3" in way.overrides or "micro_batch" not in way.overrides


def test_where_hours_are_not_known_the_fewest_nodes_are_shown() -> None:
    (way,) = plan("model=llama-2-13b", "cluster=volta1", *FULL).suggestions
    assert way.hours is way.money is None


def test_suggested_nodes_can_divide_the_rows_of_a_step() -> None:
    overrides = ("model=llama-2-70b", "cluster=a100_4x8", "cluster.nodes=3", *FULL)
    ways = plan(*overrides).suggestions
    assert ways
    for way in ways:
        assert 256 % (8 * way.nodes) == 0
        assert not plan(*overrides, *way.overrides.split()).problems
    (fewer,) = plan(*overrides[:2], "cluster.nodes=1000", *FULL).suggestions
    assert fewer.nodes == 32  # the most that can be divided


def test_nearly_full_is_tight_and_not_called_a_fit() -> None:
    one = plan(*SOLAR).rows[1]
    assert (one.fits, one.tight) == (True, False)
    need = one.memory.total / 2**30
    tight = plan(*SOLAR, f"hardware.memory_gib={need / 0.97}")
    assert (tight.rows[1].fits, tight.rows[1].tight) == (False, True)
    assert "tight" in render_plan(tight)
    assert tight.suggestions
    assert tight.problems == []
    assert "lora" in "".join(tight.warnings)
    over = plan(*SOLAR, f"hardware.memory_gib={need * 0.99}")
    assert (over.rows[1].fits, over.rows[1].tight) == (False, False)


def test_a_plan_is_compared_with_its_budget() -> None:
    whole = plan(*SOLAR)
    mid = whole.total.projection.mid
    limits = (f"budget.money={mid.money / 2}", f"budget.gpu_hours={2 * mid.device_hours}")
    result = plan(*SOLAR, *limits, "budget.pf_days=10")
    money, gpu_hours, days = result.budget
    assert (money.limit, money.unit) == (mid.money / 2, "USD")
    assert money.mid.share == pytest.approx(2)
    assert money.high.share == pytest.approx(whole.total.projection.high.money / money.limit)
    assert gpu_hours.mid.share == pytest.approx(0.5)
    assert days.mid.share == days.high.share == pytest.approx(pf_days(whole.total.flops) / 10)
    assert gpu_hours.mid.stage is None  # not reached, and buys more of the last stage
    assert gpu_hours.mid.tokens > whole.total.tokens
    assert money.low.tokens > money.mid.tokens > money.high.tokens
    first = whole.rows[0].projection.mid.money
    assert money.mid.stage == ("lora" if money.limit > first else "embeddings")
    text = render_plan(result)
    assert "budget.money=" in text
    assert f"in {money.mid.stage} at step" in text


def test_what_the_budget_buys_costs_the_budget() -> None:
    mid = plan(*SOLAR, "budget.gpu_hours=1500", *stages("lora")).budget[0].mid
    again = plan(*SOLAR[:2], *stages("lora"), f"plan.tokens={mid.tokens}")
    assert again.total.projection.mid.device_hours == pytest.approx(1500)
    assert mid.step == mid.tokens // 2**20


def test_without_a_budget_none_is_printed() -> None:
    assert plan(*SOLAR).budget == []
    assert "budget" not in render_plan(plan(*SOLAR))


def test_a_budget_that_cannot_be_measured_is_reported_first() -> None:
    unpriced = plan("model=solar-10.7b", "cluster=lumi_g", "budget.money=5")
    assert unpriced.budget[0].mid.share is None
    assert "budget.money" in unpriced.problems[0]
    on_cores = plan("model=tinyllama-1.1b", "budget.gpu_hours=5")
    assert "budget.gpu_hours" in on_cores.problems[0]


def test_a_token_costs_what_the_stages_of_the_plan_make_of_it() -> None:
    large = (*SOLAR, "tokenizer.vocab_size=128000", *stages("head"))
    old = plan(*large, "tokenizer.vocab_size=32000").total.projection.mid.money
    result = plan(*large, "plan.token_ratio=0.7")
    assert result.token_cost_ratio == pytest.approx(result.total.projection.mid.money / old)
    assert result.text_cost_ratio == pytest.approx(0.7 * result.token_cost_ratio)
    assert result.token_cost_ratio > 1.05  # the head is all that the backward pass computes
    whole = plan(*SOLAR, *FULL, "tokenizer.vocab_size=128000").token_cost_ratio
    assert whole == pytest.approx(1.033, abs=5e-4)
    unknown = plan("model=solar-10.7b", "cluster=lumi_g", *FULL, *large[3:4])
    assert unknown.token_cost_ratio == pytest.approx(whole, rel=1e-3)  # by FLOPs, without hours


def test_pretraining_is_excluded_from_the_cost_of_the_new_vocabulary() -> None:
    result = plan("experiment=example", *stages("pretrain"))
    assert result.token_cost_ratio is None
    assert "tokenizer" in render_plan(result)


def test_without_a_stage_unknown_costs_stay_unknown() -> None:
    total = plan("model=solar-10.7b", "cluster=volta1", *stages()).total
    assert total.tokens == 0
    assert total.projection.mid.hours is total.projection.mid.energy_kwh is None


def test_the_worked_example_of_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/accounting.md").read_text(encoding="utf-8")
    example = page[page.index("An example.") :]
    command = example.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    result = plan(*command.split()[2:])
    (row,), total = result.rows, result.total.projection
    assert f"{total.flops:.2e}".replace("e+", "e") in example
    days = " / ".join(f"{point.hours / 24:.2f}" for point in (total.low, total.mid, total.high))
    assert f"{days} days" in example
    assert days in render_plan(result)
    most = row.network_share * 0.64 / 0.515  # where computing is fastest
    assert f"{most:.2%}".replace("%", " %") in example
    two_stages = plan(*SOLAR, "tokenizer.vocab_size=128000", f"plan.token_ratio={1 / 1.35}")
    assert f"it is x{two_stages.text_cost_ratio:.3f}." in page

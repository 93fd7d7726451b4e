"""The text of a plan: problems come first, and every number has its reason and source."""

import csv
import io
import json
from functools import cache

import pytest
from errors import user_error

from hpc_llm.accounting import pf_days
from hpc_llm.app.main import main
from hpc_llm.config import compose, typed
from hpc_llm.planning import Plan, make_plan, render_plan

SOLAR = ("model=solar-10.7b", "cluster=a100_4x8")
CANNOT = "CANNOT RUN as it is: "


@cache
def plan(*overrides: str) -> Plan:
    return make_plan(typed(compose(list(overrides))))


def text(*overrides: str) -> str:
    return render_plan(plan(*overrides))


def test_a_batch_that_cannot_be_split_is_reported_before_anything_else() -> None:
    first = text(*SOLAR, "cluster.nodes=1000").splitlines()[0]
    assert first.startswith(CANNOT)
    assert "256 sequences cannot be split over 8000" in first
    assert "cluster.nodes=32" in first  # the most that can
    assert "cluster.nodes=2;" in text(*SOLAR, "cluster.nodes=3").splitlines()[0] + ";"
    assert plan(*SOLAR).problems == []
    assert plan("model=solar-10.7b", "launch.processes=3").problems  # ranks on cores


def test_what_does_not_fit_is_reported_first() -> None:
    lines = text("model=mixtral-8x7b", "cluster=h100_4x8").splitlines()
    assert lines[0].startswith(CANNOT)
    assert "lora does not fit: it needs 119 of 80.0 GiB" in lines[1]


def test_sequences_beyond_the_context_length_are_reported_first() -> None:
    result = plan("model=tinyllama-1.1b", "cluster=a100_4x8")
    assert result.problems[0].endswith("; use train.sequence_length=2048")


def test_a_micro_batch_below_a_sequence_is_refused_as_in_training() -> None:
    with user_error("train.micro_batch_tokens", "train.sequence_length=4096", value=4095):
        plan(*SOLAR, "train.micro_batch_tokens=4095")


def test_a_time_limit_shorter_than_the_run_is_reported() -> None:
    slurm = (*SOLAR, "launch=slurm", "launch.time=24:00:00")
    hours = plan(*SOLAR).total.projection.mid.hours
    assert hours > 24
    (warning,) = plan(*slurm, "launch.max_requeues=0").warnings
    assert "launch.time=24:00:00" in warning
    assert "24.0 hours" in warning
    assert plan(*slurm).warnings == []


def test_the_table_is_no_wider_than_a_terminal_shows() -> None:
    for overrides in ((*SOLAR,), ("model=mixtral-8x7b", "cluster=h100_4x8", "zero.stage=3")):
        result = plan(*overrides, "train.recompute=true")
        aligned = render_plan(result).split("\n\n")[1:-1]  # stages, costs, memory, suggestions
        assert len(aligned) >= 3
        assert max(len(line) for block in aligned for line in block.splitlines()) <= 125


def test_hours_device_hours_and_money_have_their_middle() -> None:
    said, mid = text(*SOLAR), plan(*SOLAR).total.projection.mid
    assert f" / {mid.device_hours:,.0f} / " in said
    assert f" / {mid.money:,.0f} / " in said
    for word in ("hours low/mid/high", "GPU-hours low/mid/high", "USD low/mid/high"):
        assert word in said or word.replace("hours", "days", 1) in said


def test_the_column_head_for_tokens_of_each_stage() -> None:
    assert "tokens each" in text(*SOLAR, "plan.tokens=1_000_000_000")
    assert "tokens each" not in text(*SOLAR)


def test_unknown_energy_has_a_reason() -> None:
    assert "energy n/a: set hardware.watts" in text("model=tinyllama-1.1b")
    assert "energy n/a: hours are unknown" in text("model=solar-10.7b", "cluster=lumi_g")


def test_adapters_of_a_mixture_of_experts_are_on_its_attention() -> None:
    said = text("model=mixtral-8x7b", "cluster=h100_4x8")
    assert "LoRA r32 attention" in said
    assert "experts" in said
    assert "LoRA r32 all" in text(*SOLAR)


def test_a_note_lists_what_is_not_in_the_hours() -> None:
    assert "tokenizer, evaluation and queue time" in text(*SOLAR)


def test_fp32_by_the_utilisation_of_bf16_is_noted() -> None:
    assert "measured in bf16" in text(*SOLAR, "train.precision=fp32")
    assert "measured in bf16" not in text(*SOLAR)


def test_exchange_rates_have_their_own_source() -> None:
    bank = "European Central Bank"
    roubles = (*SOLAR, "budget.currency=RUB", "budget.rates.RUB=90")
    assert "1 USD = 90 RUB: budget.rates" in text(*roubles)
    assert bank not in text(*roubles)
    assert bank in text(*SOLAR, "budget.currency=EUR")
    assert bank not in text(*SOLAR, "budget.currency=EUR", "budget.rates.EUR=0.8")
    assert "RUB: my bank" in text(*roubles, "budget.rates_source=my bank")


def test_csv_and_json_say_which_plan_they_are() -> None:
    result = plan(*SOLAR)
    row = next(csv.DictReader(io.StringIO(render_plan(result, "csv"))))
    assert (row["model"], row["device"], row["devices"]) == ("solar-10.7b", "A100-SXM-80GB", "32")
    assert row["cluster"] == result.cluster
    assert float(row["pf_days"]) == pytest.approx(pf_days(result.rows[0].flops))
    data = json.loads(render_plan(result, "json"))
    assert data["rows"][0]["pf_days"] == pytest.approx(pf_days(result.rows[0].flops))
    assert (data["price_low"], data["price_high"]) == (0.8, 3.0)
    assert (data["utilisation_low"], data["utilisation_high"]) == (0.39, 0.64)
    assert (data["micro_batch_tokens"], data["micro_steps"]) == (4096, 8)


@pytest.mark.parametrize("name", ["json", "csv"])
def test_published_tables_are_text_only(name: str) -> None:
    composed = compose(["plan.table=training", f"plan.format={name}"])
    with user_error("plan.format", "plan.table", value=name):
        typed(composed)


@pytest.mark.parametrize("format", ["table", "json", "csv"])
def test_a_plan_that_cannot_run_is_printed_and_exits_with_2(
    format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    form = f"plan.format={format}"
    cannot = ["model=tinyllama-1.1b", "cluster=a100_4x8"]
    can = [*cannot, "train.sequence_length=2048"]
    for verb in (["plan"], ["adapt", "plan.only=true", "corpus=sample"]):
        assert main([*verb, *cannot, form]) == 2
        assert "train.sequence_length=2048" in capsys.readouterr().out
        assert main([*verb, *can, form]) == 0
        assert capsys.readouterr().out
    assert main(["plan", "-m", *cannot, "train.sequence_length=2048,4096", form]) == 2
    assert capsys.readouterr().out.count("tinyllama-1.1b") >= 2

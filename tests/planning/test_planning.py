"""`hpc-llm plan`: from overrides of the command line to its text, and its arithmetic."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from errors import user_error
from tiny import stages

from hpc_llm.accounting import pf_days
from hpc_llm.accounting.columns import figure
from hpc_llm.accounting.hardware import read_catalogue
from hpc_llm.config import compose, typed
from hpc_llm.planning import Plan, make_plan, render_plan
from hpc_llm.planning.fitting import Suggestion
from hpc_llm.settings import ModelSettings

SOLAR = [
    "model=solar-10.7b",
    "cluster=a100_4x8",
    "plan.tokens=20_000_000_000",
    "train.sequence_length=4096",
    "train.batch_tokens=1_048_576",
    "train.precision=bf16",
    "tokenizer.vocab_size=32000",
]
MICRO_BATCH_OF_8 = ("train.micro_batch_tokens=32768",)


@cache
def plan(*overrides: str) -> Plan:
    return make_plan(typed(compose(list(overrides))))


def test_solar_by_hand() -> None:
    result = plan(*SOLAR, "cluster.link_gb_per_second=null")  # without the network
    assert result.parameters.total == 10_731_524_096
    assert result.devices == 32
    assert result.peak_tflops == 312
    assert [row.stage for row in result.rows] == ["embeddings", "lora"]
    embeddings = result.rows[0]
    assert embeddings.trainable == 262_144_000
    assert embeddings.flops_6n == 6 * 10_731_524_096 * 20_000_000_000
    assert pf_days(embeddings.flops_6n) == pytest.approx(14.90, abs=0.005)
    hours = embeddings.projection.flops / (32 * 312e12 * 0.64 * 0.8) / 3600
    assert embeddings.projection.low.hours == pytest.approx(hours)


def test_the_sum_is_the_sum() -> None:
    result = plan(*SOLAR)
    for key in ("tokens", "flops", "flops_6n"):
        assert getattr(result.total, key) == sum(getattr(row, key) for row in result.rows)
    for end in ("low", "mid", "high"):
        for key in ("hours", "device_hours", "money", "energy_kwh"):
            parts = [getattr(getattr(row.projection, end), key) for row in result.rows]
            assert getattr(getattr(result.total.projection, end), key) == pytest.approx(sum(parts))


def test_pretraining_has_the_vocabulary_of_the_base_model() -> None:
    result = plan("experiment=example", "tokenizer.vocab_size=2048")
    assert [row.stage for row in result.rows] == ["pretrain", "embeddings", "lora"]
    small, large = result.rows[0].parameters, result.rows[1].parameters
    assert large is not None
    assert small is not None
    assert large - small == (2048 - 1024) * 128
    steps = typed(compose(["experiment=example"])).stages["pretrain"].steps
    assert result.rows[0].tokens == steps * 4096


def test_tokens_and_pf_days_of_a_stage_end_it_sooner() -> None:
    solar = tuple(word for word in SOLAR if not word.startswith("plan.tokens"))
    full = plan(*solar)
    steps = typed(compose(list(solar))).stages["embeddings"].steps
    assert full.rows[0].tokens == steps * 2**20
    less = plan(*solar, "stages.embeddings.tokens=1_000_000", "stages.lora.pf_days=0.5")
    assert less.rows[0].tokens == 1_000_000
    assert pf_days(less.rows[1].flops) == pytest.approx(0.5, rel=1e-6)
    more = plan(*solar, "stages.embeddings.tokens=1_000_000_000_000", "stages.lora.pf_days=1e6")
    assert [row.tokens for row in more.rows] == [row.tokens for row in full.rows]
    assert plan(*SOLAR, "stages.lora.tokens=5").rows[1].tokens == 20_000_000_000


def test_new_rows_cost_what_embeddings_cost() -> None:
    result = plan(*SOLAR, *stages("embeddings", "new_rows"))
    embeddings, rows = result.rows
    assert rows.method == "new rows"
    for key in ("trainable", "flops", "flops_6n", "memory"):
        assert getattr(rows, key) == getattr(embeddings, key), key


def test_a_local_folder_is_read_and_a_hub_id_without_sizes_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {"model_type": "llama", "intermediate_size": 96, "vocab_size": 512, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert plan(f"model.path={tmp_path}").vocab_size_old == 512
    with user_error("model.path", "config.json", "model=NAME", value="some/model"):
        plan("model.path=some/model")
    with user_error("model.path", "model=NAME", value="null"):
        plan()


def test_table_json_and_csv_agree() -> None:
    result = plan(*SOLAR)
    table = render_plan(result)
    assert "10,731,524,096 parameters" in table
    assert "2026-05" in table
    assert "exact" in table
    assert "plan.tokens=20_000_000_000 for each stage" in table
    assert "days low/mid/high" in table
    assert f"  {result.rows[0].projection.low.hours / 24:.2f} / " in table
    data = json.loads(render_plan(result, "json"))
    assert data["rows"][1]["flops"] == result.rows[1].flops
    rows = list(csv.DictReader(io.StringIO(render_plan(result, "csv"))))
    assert int(rows[-1]["flops"]) == result.total.flops
    assert float(rows[0]["money_high"]) == result.rows[0].projection.high.money
    with user_error("plan.format", "csv, json, table", value="xml"):
        render_plan(result, "xml")


FULL = ("recipe=end_to_end", "stages.full.steps=1000")
TOO_LARGE = {
    "solar full": (*SOLAR, *FULL),
    "solar stages, micro-batch of 8": ("model=solar-10.7b", "cluster=a100_4x8", *MICRO_BATCH_OF_8),
    "llama on few": ("model=llama-3.1-405b", "cluster=a100_4x8", "cluster.nodes=1"),
    "llama on many": ("model=llama-3.1-405b", "cluster=a100_4x8", "cluster.nodes=16"),
    "one card": ("model=mistral-7b", "hardware=rtx_4090", "train=cluster", *FULL),
    "unknown network": ("model=llama-2-70b", "cluster=christofari_neo", *FULL),
    "unknown speed": ("model=llama-2-13b", "cluster=volta1", *FULL),
}


@pytest.mark.parametrize("overrides", TOO_LARGE.values(), ids=TOO_LARGE)
def test_every_suggestion_fits_when_it_is_planned(overrides: tuple[str, ...]) -> None:
    result = plan(*overrides)
    assert False in [row.fits for row in result.rows]
    assert result.suggestions
    assert len(result.suggestions) <= 4
    for way in result.suggestions:
        again = plan(*overrides, *way.overrides.split())
        assert [row.fits for row in again.rows] == [True] * len(again.rows)
        assert again.suggestions is None
        assert again.devices == way.nodes * result.devices // result.nodes
        assert max(row.memory.total for row in again.rows if row.memory) == way.memory_bytes
        hours = again.total.projection.mid.hours
        assert (way.hours is None) == (hours is None)
        assert way.hours == (None if hours is None else pytest.approx(hours))


def beats(one: Suggestion, other: Suggestion) -> bool:
    """Tell whether one is no worse in nodes, hours and money, and is not the other."""
    pairs = [(one.nodes, other.nodes), (one.hours, other.hours), (one.money, other.money)]
    return one is not other and all(mine <= theirs for mine, theirs in pairs)


@pytest.mark.parametrize("name", ["solar full", "llama on few", "llama on many", "unknown network"])
def test_no_suggestion_is_beaten_by_another(name: str) -> None:
    ways = plan(*TOO_LARGE[name]).suggestions
    assert ways
    assert not [(a, b) for a in ways for b in ways if beats(a, b)]
    assert [way.nodes for way in ways] == sorted(way.nodes for way in ways)


def test_on_the_same_nodes_no_other_way_that_fits_is_faster() -> None:
    ways = plan(*SOLAR, *FULL).suggestions
    assert ways
    assert ways[0].hours is not None
    fitting = 0
    for stage in (1, 2, 3):
        for recompute in ("true", "false"):
            for tokens in (4096, 8192, 32768):
                changes = (f"zero.stage={stage}", f"train.recompute={recompute}")
                other = plan(*SOLAR, *FULL, *changes, f"train.micro_batch_tokens={tokens}").rows[0]
                hours = other.projection.mid.hours
                assert hours is not None
                assert other.memory is not None
                if other.memory.total < 0.95 * 80 * 2**30:  # a suggestion leaves some room
                    fitting += 1
                    assert ways[0].hours <= hours * 1.000001
    assert fitting >= 3


def test_where_nothing_fits_there_is_no_suggestion() -> None:
    hopeless = ("model=llama-3.1-405b", "hardware=rtx_3090", "train=cluster")
    result = plan(*hopeless, "train.batch_tokens=4096")
    assert result.suggestions == []
    assert "nothing fits" in render_plan(result)
    assert "DOES NOT FIT" in render_plan(result)


def test_sequences_are_within_the_context_length() -> None:
    for name, length in (("tinyllama-1.1b", 2048), ("bert-base", 512), ("roberta-base", 512)):
        result = plan(f"model={name}", "cluster=a100_4x8")
        assert result.sequence_length == length
        assert result.problems[0].endswith(f"; use train.sequence_length={length}")
    assert plan("model=llama-3.1-8b", "cluster=a100_4x8").sequence_length == 4096


def test_a_cluster_brings_its_precision_and_its_training_settings() -> None:
    result = plan("model=solar-10.7b", "cluster=a100_4x8")
    assert (result.precision, result.batch_tokens) == ("bf16", 2**20)
    assert 19e9 < result.total.tokens < 21e9
    assert plan("model=solar-10.7b", "cluster=volta1").precision == "fp16"
    assert plan("model=solar-10.7b", "cluster=volta1", "train.precision=fp32").precision == "fp32"
    assert plan("model=solar-10.7b", "cluster=a100_4x8", "train=default").batch_tokens == 4096
    assert plan("experiment=example", "cluster=a100_4x8").batch_tokens == 4096


def test_the_tokenizer_saves_by_its_token_ratio(tmp_path: Path) -> None:
    large = ("model=solar-10.7b", "tokenizer.vocab_size=128000", "train.sequence_length=4096")
    large += ("train.batch_tokens=4096", f"runs_dir={tmp_path}", *FULL)
    assert "a text: n/a without plan.token_ratio" in render_plan(plan(*large))
    given = render_plan(plan(*large, f"plan.token_ratio={1 / 1.35}"))
    assert "128,000 tokens: a token costs x1.032" in given
    assert "with tokens x0.741 a text costs x0.765" in given
    result = {"vocab_size": 128_000, "token_ratio": 0.5}
    record = {"stage": "tokenizer", "fingerprint": "a", "seconds": 1.0, "result": result}
    (tmp_path / "solar-10.7b").mkdir()
    (tmp_path / "solar-10.7b" / "record.jsonl").write_text(json.dumps(record) + "\n")
    config = typed(compose(list(large)))
    assert make_plan(config).token_ratio == 0.5
    config.tokenizer.vocab_size = 32_000  # another vocabulary than the one measured
    assert make_plan(config).token_ratio is None
    with user_error("plan.token_ratio", value=-1):
        plan(*large, "plan.token_ratio=-1")


def test_money_is_in_the_currency_of_the_budget() -> None:
    dollars = plan(*SOLAR)
    roubles = plan(*SOLAR, "budget.currency=RUB", "budget.rates.RUB=90", "budget.rates_source=me")
    assert (dollars.currency, roubles.currency) == ("USD", "RUB")
    low, other = dollars.total.projection.low, roubles.total.projection.low
    assert other.money == pytest.approx(90 * low.money)
    assert other.hours == low.hours
    assert "72 to 270 RUB per device-hour, 2026-05; 1 USD = 90 RUB: me" in render_plan(roubles)
    with user_error("currency", "budget.rates.RUB=", value="RUB"):
        plan(*SOLAR, "budget.currency=RUB")


def test_small_numbers_keep_two_significant_digits() -> None:
    written = [figure(value) for value in (0, 0.001, 0.0123, 1.0, 99.96, 12345.6, 3e-8, None)]
    assert written == ["0", "0.0010", "0.0123", "1.00", "100", "12,346", "3.0e-08", "n/a"]


def test_unknown_numbers_are_printed_as_such() -> None:
    overrides = [o for o in SOLAR if not o.startswith("cluster")]
    table = render_plan(plan(*overrides, "cluster=lumi_g"))
    assert "n/a" in table
    assert "hardware.utilisation_low" in table
    assert "hardware.price_low" in table
    empty = list(
        csv.DictReader(io.StringIO(render_plan(plan(*overrides, "cluster=lumi_g"), "csv")))
    )
    assert empty[0]["money_low"] == ""


def test_every_cluster_brings_its_device_and_the_command_line_wins() -> None:
    assert plan(*SOLAR).device == "A100-SXM-80GB"
    assert plan(*SOLAR, "hardware=h100_sxm").device == "H100-SXM-80GB"


def test_every_model_of_the_catalogue_is_planned() -> None:
    cfg = typed(compose(SOLAR))
    for name, entry in read_catalogue("model").items():
        if name != "weights":  # the user's own folder
            result = make_plan(replace(cfg, model=ModelSettings(**entry)))
            assert result.total.flops > 0


def test_bad_requests_are_refused_in_one_line() -> None:
    with user_error("train.precision", "fp16", value="bf16"):
        plan(*SOLAR[:1], "cluster=volta1", "train.precision=bf16")
    with user_error("hardware.utilisation_high", value=1.5):
        plan(*SOLAR, "hardware.utilisation_high=1.5")
    with user_error("stages.lora.targets", "q_proj", value="[gate]"):
        plan(*SOLAR, "stages.lora.targets=[gate]")


@pytest.mark.parametrize("room", ["accounting", "planning"])
def test_it_loads_without_heavy_libraries(room: str) -> None:
    heavy = ("torch", "numpy", "transformers", "hydra", "rich")
    code = f"import sys, hpc_llm.{room}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

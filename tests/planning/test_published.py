"""The published tables and claims, cell by cell."""

import re

import pytest

from hpc_llm.accounting import Architecture, device, find_device, parameter_count
from hpc_llm.accounting.hardware import read_catalogue
from hpc_llm.planning.published import (
    MPT_TOKENS_PER_SECOND,
    PUBLISHED_TRAINING,
    half_up,
    inference_devices,
    lecture_memory,
    tokenizer_saving,
    training_devices,
)
from hpc_llm.planning.published_tables import published_table
from hpc_llm.settings.plan import TABLES


@pytest.mark.parametrize("row", PUBLISHED_TRAINING, ids=lambda row: row.name)
def test_both_cells_of_each_model_match_at_three_digits(row) -> None:
    assert half_up(row.flops) == row.published_flops
    assert half_up(row.pf_days) == row.published_pf_days


def test_halves_are_rounded_up_where_binary_rounding_goes_down() -> None:
    large = next(row for row in PUBLISHED_TRAINING if row.name == "BERT-Large")
    assert large.flops == 5325 * 10**17
    assert half_up(large.flops) == "5.33E+20"
    assert f"{float(large.flops):.2e}" == "5.32e+20"


@pytest.mark.parametrize(
    ("billions", "smallest", "recommended", "training"),
    [
        (7, "RTX 4090", 1, 2),
        (13, "1 A100-80", 1, 3),
        (33, "1 A100-80", 2, 7),
        (70, "2 A100-80", 4, 14),
    ],
)
def test_the_hardware_table(billions: int, smallest: str, recommended: int, training: int) -> None:
    assert inference_devices(billions * 10**9) == (smallest, recommended)
    assert training_devices(billions * 10**9) == training
    cells = f"{billions}B {smallest} {recommended} {training}".split()
    assert cells in [line.split() for line in published_table("inference").splitlines()]


def model(name: str) -> Architecture:
    return Architecture.from_config(read_catalogue("model")[name]["architecture"])


@pytest.mark.parametrize(
    ("trainable", "heads", "gigabytes"),
    [
        (None, False, {"weights": 2.6, "gradients": 2.6, "Adam": 5.26, "hidden states": 1.04}),
        (None, True, {"hidden states": 2.21}),
        (200_000, False, {"weights": 2.6, "gradients": 0, "Adam": 0, "hidden states": 1.04}),
    ],
)
def test_memory_of_opt(trainable: int | None, heads: bool, gigabytes: dict) -> None:
    opt = model("opt-1.3b")
    parts = lecture_memory(opt, trainable or parameter_count(opt).total, 512, heads)
    for part, expected in gigabytes.items():
        assert parts[part] / 1e9 == pytest.approx(expected, abs=0.05)
    if not heads:  # with 1 GB of context
        total = sum(parts.values()) / 1e9 + 1
        assert total == pytest.approx(4.6 if trainable else 12.4, rel=0.02)


def test_the_measured_memory_of_opt_is_that_at_the_end_of_the_forward_pass() -> None:
    opt = model("opt-1.3b")
    count = parameter_count(opt).total
    assert count == 1_315_758_080
    for trainable, measured_gb in ((count, 11.0), (200_000, 5.7)):
        parts = lecture_memory(opt, trainable, 512, heads=True)
        held = sum(parts.values()) - parts["gradients"] + 1e9
        assert held / 1e9 == pytest.approx(measured_gb, rel=0.03)
    full = lecture_memory(opt, count, 512, heads=True)
    assert sum(full.values()) / 1e9 + 1 > 1.2 * 11.0  # all parts at once are no peak
    table = published_table("memory")
    for said in ("errata", "5.26 GB, not 10.2", "11.11 and 5.85 GB", "within 3 %", "unknown"):
        assert said in table


def test_the_tokenizer_saving_counts_tokens_and_the_larger_head() -> None:
    saving = tokenizer_saving(model("solar-10.7b"), 128_000, (135, 100), 4096)
    assert round(saving, 3) == 0.765
    assert tokenizer_saving(model("solar-10.7b"), 32_000, (100, 100), 4096) == 1


def test_the_sentences_on_time_and_money() -> None:
    assert 288 * 12 / 512 == 6.75
    peak = 512 * device("a100_sxm_80gb").peak_flops_per_second("bf16")
    gpt3 = PUBLISHED_TRAINING[-1].flops
    assert gpt3 / (peak * 43 * 86_400) == pytest.approx(0.529, abs=0.001)
    assert gpt3 / 28e12 / (8766 * 3600) == pytest.approx(355, abs=1)
    claims = published_table("claims")
    for said in ("6.75 months", "52.9% of", "528,384 GPU-hours", "132.5 RUB", "112 months"):
        assert said in claims
    for said in ("inferred", "$4.67M", "355 V100-years", "$12M", "no derivation"):
        assert said in claims
    for said in ("0.135%", "1.65%", "quoted constants", "x0.765", "x0.741 or x0.65"):
        assert said in claims


def test_h100_against_a100_at_the_peak_and_measured() -> None:
    peaks = [device(name).peak_tflops["bf16"] for name in ("h100_sxm", "a100_sxm_80gb")]
    assert round(peaks[0] / peaks[1], 2) == 3.17
    ratios = [fast / slow for fast, slow in MPT_TOKENS_PER_SECOND.values()]
    assert (round(min(ratios), 1), round(max(ratios), 1)) == (2.1, 2.5)
    assert [round(f(ratios) / 2, 2) for f in (min, max)] == [1.06, 1.27]
    table = published_table("h100")
    for said in ("3.17", "1.06", "1.27", "llm-foundry"):
        assert said in table
    found = find_device("NVIDIA H100 80GB HBM3")
    assert found is not None
    assert found.peak_tflops["bf16"] != 1979  # the sparse figure


@pytest.mark.parametrize("name", TABLES)
def test_every_table_prints(name: str) -> None:
    text = published_table(name)
    assert len(text.splitlines()) > 4
    assert not re.search(r"\bnan\b|None", text)


def test_the_printed_training_table_agrees_with_itself() -> None:
    for line in published_table("training").splitlines()[2:]:
        cells = line.split()
        assert cells[-4] == cells[-3]
        assert cells[-2] == cells[-1]

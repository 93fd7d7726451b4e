"""The numbers of docs/accounting.md: counts of other tools for one run, and the exact count.

The formulas of other trainers are written out here, by hand, as their code has them (the page
names function and version). Those that are installed are asked themselves, on models without
memory (the meta device): transformers, the profiler of DeepSpeed, and the counter of torch, which
is what Lightning's `measure_flops` runs.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
import transformers
from deepspeed.profiling.flops_profiler import FlopsProfiler
from torch.utils.flop_counter import FlopCounterMode

from hpc_llm.accounting import Architecture, Method, flops_per_token, parameter_count, step_flops
from hpc_llm.accounting.hardware import read_catalogue

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accounting.md"

h, L, D, K, F, V = 4096, 48, 4096, 1024, 14336, 32000  # SOLAR-10.7B
S, RANK = 4096, 64
CAUSAL = (S + 1) / 2 / S  # share of the pairs that a causal mask leaves
SIZES = [(h, D), (h, K), (h, K), (D, h), (h, F), (h, F), (F, h)]  # q k v o gate up down
BODY = L * sum(inputs * outputs for inputs, outputs in SIZES)
HEAD = TABLE = V * h
N = BODY + HEAD + TABLE + (2 * L + 1) * h  # two norms a layer, one at the end
ADAPTERS = L * RANK * sum(inputs + outputs for inputs, outputs in SIZES)
QK = L * D * S  # twice this, for one of the two products of attention, forward
METHODS = {"full": Method.full(), "ends": Method.embeddings(), "lora": Method.lora(RANK)}
TRAINED = {"full": N, "ends": HEAD + TABLE, "lora": ADAPTERS}


def exact(method: str, pairs: float) -> float:
    """FLOPs of a token; `pairs` is the share of attention that is counted: 1 or CAUSAL."""
    attention = 12 * QK * pairs  # two products forward, four backward
    if method == "full":
        return 6 * (BODY + HEAD) + attention
    if method == "ends":
        return 4 * BODY + 6 * HEAD + attention
    first = 2 * h * (D + 2 * K)  # nothing below the first layer's q, k, v needs a gradient
    adapters = 6 * ADAPTERS - 3 * 2 * RANK * h
    return 4 * BODY - first + 4 * HEAD + attention + adapters


def extra(method: str) -> int:
    return ADAPTERS if method == "lora" else 0


def hugging_face(method: str) -> float:
    return 6 * (N - TABLE + extra(method))


def torchtitan(method: str) -> float:
    return 6 * (N - TABLE + extra(method)) + 6 * L * 32 * (2 * D // 32) * S


def olmo_core(_: str) -> float:
    return 6 * (BODY + HEAD + h) + 12 * QK  # the final norm belongs to its head


def megatron(_: str) -> float:  # Megatron-Bridge knows LoRA, but leaves this count as it is
    linear = L * (h * (D + 2 * K) + D * h + h * F * 3) + h * V
    return 3 * 2 * linear + 3 * 2 * (D / 2 * 2) * L * S


def palm(_: str) -> float:
    return 6 * N + 12 * QK


def llm_foundry(_: str) -> float:
    return (2 * (N - TABLE) + L * 2 * 2 * D * S) * 3


def deepspeed(method: str) -> float:
    return 3 * (2 * (BODY + HEAD + extra(method)) + 4 * QK)


def litgpt(method: str) -> float:
    trained = TRAINED[method]
    frozen = N + extra(method) - trained
    return 3 * (2 * trained + 4 * QK) + 2 * (2 * frozen + 4 * QK)


PEERS = {
    "exact, dense": lambda method: exact(method, 1),
    "exact, causal": lambda method: exact(method, CAUSAL),
    "HF Trainer": hugging_face,
    "torchtitan": torchtitan,
    "OLMo-core": olmo_core,
    "Megatron-LM": megatron,
    "Megatron-Bridge": megatron,
    "nanoGPT": palm,
    "llm-foundry": llm_foundry,
    "DeepSpeed profiler": deepspeed,
    "Lightning": lambda method: exact(method, 1),
    "LitGPT": litgpt,
}
WITHOUT_LORA = {"OLMo-core", "Megatron-LM", "nanoGPT", "llm-foundry"}


def cells(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table below a heading of the page, by their first cell."""
    section = PAGE.read_text(encoding="utf-8").split(f"# {heading}\n")[1].split("\n#")[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line] for line in lines]
    return {row[0]: row[1:] for row in rows[2:]}


def model(config: dict, method: str = "full", attention: str = "sdpa") -> torch.nn.Module:
    """Build a model without memory, in which `method` trains what it trains."""
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**config), attn_implementation=attention
        )
        if method == "lora":
            lora = peft.LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
            return peft.get_peft_model(built, lora)
    if method == "ends":
        built.requires_grad_(False)
        built.get_input_embeddings().requires_grad_(True)
        built.get_output_embeddings().requires_grad_(True)
    return built


def batch(length: int = S) -> dict[str, torch.Tensor]:
    tokens = torch.zeros(1, length, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, length, length, device="meta")  # given: its making needs numbers
    return {"input_ids": tokens, "labels": tokens, "attention_mask": mask, "use_cache": False}


def total_flos(asked: torch.nn.Module, length: int = S) -> int:
    """What the Trainer of transformers adds to `total_flos` for a row of that length."""
    return transformers.Trainer.floating_point_ops(SimpleNamespace(model=asked), batch(length))


def catalogue_config(name: str) -> dict:
    return read_catalogue("model")[name]["architecture"]


SOLAR = catalogue_config("solar-10.7b")
ARCH = Architecture.from_config(SOLAR)


def test_the_sizes_written_out_here_are_those_of_the_catalogue() -> None:
    assert parameter_count(ARCH).total == N
    assert sum(p.numel() for p in model(SOLAR).parameters()) == N


@pytest.mark.parametrize("method", METHODS)
def test_the_exact_count_equals_the_formula_written_out(method: str) -> None:
    dense = step_flops(ARCH, METHODS[method], 1, S, attention="dense")
    assert dense.total == S * exact(method, 1)
    assert flops_per_token(ARCH, METHODS[method], S) == exact(method, CAUSAL)


@pytest.mark.parametrize("name", PEERS)
def test_the_page_has_what_each_peer_counts(name: str) -> None:
    written = cells("The same run by each trainer")[name]
    counted = [PEERS[name](method) for method in METHODS]
    figures = [f"{flops / 1e9:.2f}" for flops in counted]
    over = [f"{counted[2] / exact('lora', pairs):.2f}" for pairs in (1, CAUSAL)]
    if name in WITHOUT_LORA:
        figures[2], over = "none", ["", ""]
    assert written == [*figures, *over]


def test_the_page_names_every_peer_in_both_tables() -> None:
    names = set(PEERS) - {"exact, dense", "exact, causal"}
    for heading in ("Formulas of other trainers", "What other trainers do not count"):
        assert set(cells(heading)) == names


def test_the_conventions_of_one_run() -> None:
    written = cells("Conventions")
    figures = {
        "`6n`": 6 * N,
        "`exact`": exact("full", CAUSAL),
        "`megatron`": megatron("full"),
        "dense": exact("full", 1),
        "`palm`": palm("full"),
    }
    assert {name: row[-1] for name, row in written.items()} == {
        name: f"{flops / 1e9:.2f}" for name, flops in figures.items()
    }
    for convention in ("6n", "megatron", "palm"):
        ours = flops_per_token(ARCH, Method.full(), S, convention)
        assert ours == figures[f"`{convention}`"]


@pytest.mark.parametrize("method", METHODS)
def test_transformers_counts_frozen_weights_as_trained(method: str) -> None:
    assert total_flos(model(SOLAR, method)) == S * hugging_face(method)


def test_transformers_counts_lora_too_high_on_short_rows_and_too_low_on_long_ones() -> None:
    asked = model(SOLAR, "lora")
    written = cells("Transformers and LoRA")
    ratios = {}
    for length in (512, 1024, 2048, 4096, 8192, 16384):
        theirs = total_flos(asked, length) / length
        dense = step_flops(ARCH, Method.lora(RANK), 1, length, attention="dense").total / length
        causal = flops_per_token(ARCH, Method.lora(RANK), length)
        ratios[length] = theirs / dense
        figures = [f"{flops / 1e9:.2f}" for flops in (theirs, dense, causal)]
        figures += [f"{theirs / dense:.2f}", f"{theirs / causal:.2f}"]
        assert written[f"{length:,}"] == figures
    assert 1.39 < ratios[1024] < ratios[512] < 1.45
    assert ratios[8192] > 1 > ratios[16384]


def test_transformers_leaves_out_the_head_of_a_tied_model() -> None:
    written = cells("Transformers and tied models")
    for name, row in written.items():
        config = catalogue_config(name)
        arch = Architecture.from_config(config)
        count = parameter_count(arch)
        assert arch.tied_embeddings
        theirs = total_flos(model(config, attention="eager"), 2048) / 2048
        assert theirs == 6 * (count.total - count.embedding)
        ours = flops_per_token(arch, Method.full(), 2048)
        assert row == [f"{theirs / 1e9:.2f}", f"{ours / 1e9:.2f}", f"{theirs / ours:.2f}"]
        assert theirs < 0.9 * ours


@pytest.mark.parametrize("method", METHODS)
def test_the_counter_of_torch_agrees_at_full_size(method: str) -> None:
    with FlopCounterMode(display=False) as counter:
        model(SOLAR, method, "eager")(**batch()).loss.backward()
    assert counter.get_total_flops() == S * exact(method, 1)


@pytest.mark.parametrize("method", METHODS)
def test_the_profiler_of_deepspeed_takes_three_forward_passes(method: str) -> None:
    asked = model(SOLAR, method)
    profiler = FlopsProfiler(asked)
    profiler.start_profile()
    try:
        with torch.no_grad():
            asked(**batch())
        products, everything = profiler.get_total_macs(), profiler.get_total_flops()
    finally:
        profiler.end_profile()
    assert 3 * 2 * products == S * deepspeed(method)
    assert 1 < everything / (2 * products) < 1.001  # elementwise operations


def test_what_trains_decides_the_cost() -> None:
    written = cells("Training cost by method")
    methods = {
        "everything": Method.full(),
        "embedding and head": Method.embeddings(),
        "input embedding": Method.input_embeddings(),
        "head": Method.head(),
        "LoRA r64, all seven layers": Method.lora(64),
        "LoRA r64, q and v": Method.lora(64, ("q_proj", "v_proj")),
        "LoRA r64, all seven, embedding, head": Method.lora(64, embeddings=True, head=True),
    }
    assert set(written) == set(methods)
    full = step_flops(ARCH, Method.full(), 1, S).total
    for name, method in methods.items():
        dense = step_flops(ARCH, method, 1, S).total
        causal = flops_per_token(ARCH, method, S)
        again = step_flops(ARCH, with_recomputation(method), 1, S).total
        figures = [f"{flops / 1e9:.2f}" for flops in (dense / S, causal, again / S)]
        shares = [f"{dense / full:.3f}", f"{again / dense:.2f}"]
        assert written[name] == [figures[0], shares[0], figures[1], figures[2], shares[1]]


def with_recomputation(method: Method) -> Method:
    return Method(**{**vars(method), "recompute": True})


def test_numbers_in_the_text() -> None:
    text = re.sub(r"\s+", " ", PAGE.read_text(encoding="utf-8"))
    causal, again = (
        exact("lora", CAUSAL),
        step_flops(ARCH, Method.lora(RANK, recompute=True), 1, S),
    )
    for name, shown in (("HF Trainer", 53.5), ("torchtitan", 61.4), ("Megatron-Bridge", 56.2)):
        assert round(40 * PEERS[name]("lora") / causal, 1) == shown
        assert f"{shown} %" in text
    lowest, highest = 6 * N / exact("full", CAUSAL), palm("full") / exact("full", CAUSAL)
    assert f"{1 - lowest:.0%} lower or {highest - 1:.0%} higher".replace("%", " %") in text
    assert f"up to {torchtitan('lora') / causal - 1:.0%} higher".replace("%", " %") in text
    tokens = 20e9
    carried_out = again.total / S * tokens
    assert f"{causal * tokens / 8.64e19:.2f} PF-days" in text
    assert f"{carried_out:.3g} FLOPs".replace("e+", "e") in text
    for utilisation in (0.39, 0.515, 0.64):
        hours = carried_out / (32 * 312e12 * utilisation * 0.8) / 3600
        assert f"{hours:.0f} hours" in text
    below_three, stage_three = 2 * 2 * ADAPTERS * 31 / 32, 2 * (2 * N + ADAPTERS) * 31 / 32
    assert f"{below_three / 1e9:.2f} GB per optimizer step" in text
    assert f"{stage_three / 1e9:.1f} GB per gradient accumulation step" in text

"""Seven reference steps, other FLOP conventions, and attention counted pair by pair."""

import itertools
from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm.accounting import (
    Architecture,
    Method,
    flops_per_token,
    parameter_count,
    pf_days,
    step_flops,
)
from hpc_llm.accounting.flops import attended_pairs

SMALL = Architecture(
    hidden_size=256, num_layers=4, num_heads=8, num_kv_heads=2, ffn_size=688, vocab_size=8192
)
SOLAR = Architecture(
    hidden_size=4096, num_layers=48, num_heads=32, num_kv_heads=8, ffn_size=14336, vocab_size=32000
)


@pytest.mark.parametrize(
    ("method", "total"),
    [
        (Method.full(), 16_559_112_192),
        (Method.full(recompute=True), 19_209_912_320),
        (Method.embeddings(), 13_723_762_688),
        (Method.input_embeddings(), 11_576_279_040),
        (Method.head(), 7_667_187_712),
        (Method.lora(8, ("q_proj", "v_proj")), 11_486_101_504),
        (Method.lora(8), 11_911_299_072),
    ],
)
def test_reference_steps(method: Method, total: int) -> None:
    assert step_flops(SMALL, method, 2, 256).total == total


def test_full_training_is_three_forward_passes() -> None:
    step = step_flops(SOLAR, Method.full(), 3, 128)
    assert step.backward == 2 * step.forward


@pytest.mark.parametrize(
    ("convention", "gflop"), [("6n", 64.4), ("exact", 68.4), ("megatron", 68.4), ("palm", 74.1)]
)
def test_the_same_run_by_each_convention(convention: str, gflop: float) -> None:
    per_token = flops_per_token(SOLAR, Method.full(), 4096, convention)
    assert round(per_token / 1e9, 1) == gflop


def test_dense_attention_equals_the_counter() -> None:
    assert round(step_flops(SOLAR, Method.full(), 1, 4096).total / 4096 / 1e9, 1) == 73.3


@pytest.mark.parametrize(
    ("method", "share"),
    [(Method.embeddings(), 0.714), (Method.lora(64), 0.731), (Method.head(), 0.337)],
)
def test_share_of_full_training(method: Method, share: float) -> None:
    full = step_flops(SOLAR, Method.full(), 1, 4096).total
    assert round(step_flops(SOLAR, method, 1, 4096).total / full, 3) == share


def test_four_times_the_vocabulary_costs_little_in_a_large_model() -> None:
    old, new = (
        step_flops(replace(SOLAR, vocab_size=vocab_size), Method.full(), 1, 4096).total
        for vocab_size in (32_000, 128_000)
    )
    assert round(new / old - 1, 3) == 0.032


def test_recomputation_with_a_head_alone_is_dearer_than_it_looks() -> None:
    plain = step_flops(SOLAR, Method.head(), 1, 4096).total
    again = step_flops(SOLAR, Method.head(recompute=True), 1, 4096).total
    assert round(again / plain, 2) == 2.87


@pytest.mark.parametrize("window", [1, 3, 5, 100])
def test_pairs_are_those_that_a_mask_lets_through(window: int) -> None:
    arch = Architecture(
        hidden_size=8, num_layers=3, num_heads=2, ffn_size=8, vocab_size=8,
        sliding_window=window, sliding_layers=(0, 2),
    )  # fmt: skip
    lengths = [1, 4, 7]
    pairs = [pair for n in lengths for pair in itertools.product(range(n), repeat=2)]
    whole = sum(key <= query for query, key in pairs)
    sliding = sum(key <= query < key + window for query, key in pairs)
    assert attended_pairs(arch, lengths, "causal") == [sliding, whole, sliding]
    assert attended_pairs(arch, lengths, "dense") == [1 + 16 + 49] * 3


def test_packed_documents_save_attention_and_nothing_else() -> None:
    whole = step_flops(SMALL, Method.full(), 1, 64)
    packed = step_flops(SMALL, Method.full(), 1, 64, document_lengths=[40, 24])
    pairs = 64**2 - 40**2 - 24**2
    assert whole.total - packed.total == 3 * 4 * pairs * SMALL.query_size * SMALL.num_layers
    with user_error("document_lengths", "63", "64"):
        step_flops(SMALL, Method.full(), 1, 64, document_lengths=[40, 23])
    with user_error("document_lengths", value=-6):
        step_flops(SMALL, Method.full(), 1, 64, document_lengths=[70, -6])


def test_a_pf_day_is_ten_to_the_fifteen_for_a_day() -> None:
    assert pf_days(1e15 * 24 * 3600) == 1


def test_an_encoder_attends_to_both_sides_in_every_convention() -> None:
    encoder = replace(SMALL, kind="encoder", gated_mlp=False)
    causal, dense = (
        step_flops(encoder, Method.full(), 2, 64, kind) for kind in ("causal", "dense")
    )
    assert causal == dense
    exact, megatron = (
        flops_per_token(encoder, Method.full(), 64, convention)
        for convention in ("exact", "megatron")
    )
    assert exact * 2 * 64 == dense.total
    assert exact - megatron == 6 * SMALL.hidden_size**2  # the head's transform


@pytest.mark.parametrize("convention", ["exact", "palm", "megatron"])
def test_an_encoder_decoder_is_counted_by_its_parameters_only(convention: str) -> None:
    t5 = replace(SMALL, kind="encoder-decoder", encoder_layers=4)
    assert flops_per_token(t5, Method.full(), 64, "6n") == 6 * parameter_count(t5).total
    with user_error("kind", "convention=6n", value="encoder-decoder"):
        flops_per_token(t5, Method.full(), 64, convention)


@pytest.mark.parametrize(
    ("call", "key", "value", "mention"),
    [
        (lambda: step_flops(SMALL, Method.full(), 0, 16), "batch_size", 0, "0"),
        (lambda: step_flops(SMALL, Method.full(), 1, -1), "sequence_length", -1, "0"),
        (
            lambda: step_flops(SMALL, Method.full(), 1, 8, attention="sparse"),
            *("attention", "sparse", "causal, dense"),
        ),
        (lambda: flops_per_token(SMALL, Method.full(), 8, "7n"), "convention", "7n", "megatron"),
        (lambda: Method.lora(0), "rank", 0, "0"),
        (lambda: Method.lora(2, ("queries",)), "targets", "[queries]", "q_proj"),
        (lambda: Method.lora(2, ()), "targets", "[]", "q_proj"),
    ],
)
def test_errors_list_the_known_choices(call, key: str, value: object, mention: str) -> None:
    with user_error(key, mention, value=value):
        call()


def test_lora_on_a_layer_that_the_model_lacks_is_refused() -> None:
    plain = Architecture(
        hidden_size=32, num_layers=1, num_heads=2, ffn_size=64, vocab_size=9, gated_mlp=False
    )
    with user_error("targets", "up_proj", value="[gate_proj]"):
        step_flops(plain, Method.lora(2, ("gate_proj",)), 1, 8)

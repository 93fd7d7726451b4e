"""States, peaks and traffic against the published formulas and worked examples."""

from dataclasses import replace

import pytest
from errors import user_error

from hpc_llm.accounting import (
    Architecture,
    Method,
    TrainingSetup,
    device,
    fits,
    memory,
    memory_plan,
    network_seconds,
    parameter_count,
    zero_traffic,
)
from hpc_llm.accounting.activations import held_activations
from hpc_llm.accounting.hardware import cluster_catalogue
from hpc_llm.accounting.tensor import split_parameters
from hpc_llm.accounting.traffic import sequence_traffic, tensor_traffic

SOLAR = Architecture(
    hidden_size=4096, num_layers=48, num_heads=32, num_kv_heads=8, ffn_size=14336, vocab_size=32000
)
N = parameter_count(SOLAR).total
SETUP = TrainingSetup(precision="bf16", sequence_length=4096, data_parallel=32)


@pytest.mark.parametrize(
    ("stage", "states"),
    [(0, 16 * N), (1, 4 * N + 12 * N / 32), (2, 2 * N + 14 * N / 32), (3, 16 * N / 32)],
)
def test_states_of_each_zero_stage(stage: int, states: float) -> None:
    plan = memory_plan(SOLAR, Method.full(), replace(SETUP, zero_stage=stage))
    assert plan.states == pytest.approx(states, rel=1e-8)


def test_fp32_keeps_no_copy_of_the_weights() -> None:
    plan = memory_plan(SOLAR, Method.full(), replace(SETUP, precision="fp32"))
    assert plan.states == 16 * N


def test_frozen_parameters_cost_their_weights_only() -> None:
    trained = 2 * 32000 * 4096
    plan = memory_plan(SOLAR, Method.embeddings(), SETUP)
    assert (plan.weights, plan.gradients, plan.optimizer) == (2 * N, 2 * trained, 12 * trained)


def test_solar_with_zero_3_and_recomputation_is_the_worked_example() -> None:
    setup = replace(SETUP, zero_stage=3, micro_batch_size=2, bucket_elements=500_000_000)
    setup = replace(setup, fused_loss=False)
    again = memory_plan(SOLAR, Method.full(recompute=True), setup)
    assert round(again.states / 1e9, 1) == 5.4
    assert round(again.live_parameters / 1e9, 1) == round(again.buckets / 1e9, 1) == 2.0
    a_token = 12 * 32000 + 48 * 2 * 4096 + 8 * 4096 + 4 + 4 * 128  # loss, layers, norm, rotary
    assert again.activations + again.logits == 8192 * a_token
    plain = memory_plan(SOLAR, Method.full(), setup)
    assert (plain.total - again.total) / 1e9 == pytest.approx(75.8, abs=4)
    assert fits(again, device("a100_sxm_80gb"))
    assert not fits(plain, device("a100_sxm_80gb"))


def test_a_large_vocabulary_shows_at_the_loss_unless_it_is_fused() -> None:
    large = replace(SOLAR, vocab_size=128_000)
    setup = replace(SETUP, micro_batch_size=2, fused_loss=False)
    plan = memory_plan(large, Method.lora(8), setup)
    assert plan.logits * 3 / 2 / 1e9 == pytest.approx(12.6, abs=0.05)
    assert memory_plan(large, Method.lora(8), replace(setup, fused_loss=True)).logits == 0


@pytest.mark.parametrize("method", [Method.full(), Method.embeddings(), Method.lora(16)])
def test_a_higher_stage_and_more_ranks_never_need_more(method: Method) -> None:
    totals = [
        memory_plan(SOLAR, method, replace(SETUP, zero_stage=stage, fused_loss=False)).states
        for stage in range(4)
    ]
    assert totals == sorted(totals, reverse=True)
    by_ranks = [
        memory_plan(SOLAR, method, replace(SETUP, zero_stage=2, data_parallel=ranks)).states
        for ranks in (1, 2, 8, 64)
    ]
    assert by_ranks == sorted(by_ranks, reverse=True)


def test_offloading_moves_states_to_the_host() -> None:
    setup = replace(SETUP, zero_stage=3, offload_optimizer=True, offload_parameters=True)
    plan = memory_plan(SOLAR, Method.full(), setup)
    assert plan.optimizer == plan.weights == 0


def test_memory_by_its_own_names_is_that_of_the_setup() -> None:
    plan = memory(
        SOLAR,
        Method.lora(8),
        zero_stage=3,
        data_parallel=32,
        micro_batch_size=1,
        sequence_length=4096,
        precision="bf16",
        offload="none",
        recompute=True,
    )
    setup = replace(SETUP, zero_stage=3)
    assert plan == memory_plan(SOLAR, Method.lora(8, recompute=True), setup)
    again = Method.full(recompute=True)
    for offload, kept in (("none", 14 * N), ("optimizer", 2 * N), ("all", 0)):
        plan = memory(SOLAR, again, 3, 32, 2, 4096, "bf16", offload)
        assert plan.weights + plan.optimizer == pytest.approx(kept / 32, abs=8)
        assert plan.recomputed  # as the method says
        assert not memory(SOLAR, again, 3, 32, 2, 4096, "bf16", offload, False).recomputed


@pytest.mark.parametrize(
    ("change", "key", "value", "mention"),
    [
        ({"offload": "disk"}, "offload", "disk", "all, none, optimizer"),
        ({"offload": "all"}, "zero_stage", 2, "3"),
        ({"offload": "optimizer", "zero_stage": 0}, "zero_stage", 0, "1, 2 or 3"),
        ({"precision": "fp8"}, "precision", "fp8", "bf16"),
        ({"zero_stage": -1}, "zero_stage", -1, "0, 1, 2 or 3"),
        ({"data_parallel": 0}, "data_parallel", 0, "0"),
        ({"sequence_length": -4096}, "sequence_length", -4096, "0"),
    ],
)
def test_invalid_choices_are_refused(change: dict, key: str, value: object, mention: str) -> None:
    choices = {"zero_stage": 2, "data_parallel": 8, "micro_batch_size": 1}
    choices |= {"sequence_length": 4096, "precision": "bf16"}
    with user_error(key, mention, value=value):
        memory(SOLAR, Method.full(), **choices | change)


def test_traffic_is_that_of_the_zero_paper() -> None:
    three = replace(SETUP, zero_stage=3)
    gathers = 2 * 2 * N * 31 / 32
    sent = zero_traffic(SOLAR, Method.embeddings(), three)
    assert gathers / 1e9 == pytest.approx(41.6, abs=0.05)
    assert (sent - gathers) / 1e9 == pytest.approx(0.5, abs=0.05)
    assert zero_traffic(SOLAR, Method.embeddings(), three, 4) == pytest.approx(4 * sent)
    two = zero_traffic(SOLAR, Method.full(), replace(SETUP, zero_stage=2), 4)
    assert two == pytest.approx(2 * 2 * N * 31 / 32)
    assert zero_traffic(SOLAR, Method.full(), replace(SETUP, data_parallel=1)) == 0


@pytest.mark.parametrize(("link", "seconds"), [(200.0, 0.24), (25.0, 1.93), (12.5, 3.86)])
def test_seconds_on_the_network_of_the_worked_example(link: float, seconds: float) -> None:
    cluster = replace(cluster_catalogue()["a100_4x8"], link_gb_per_second=link)
    three = replace(SETUP, zero_stage=3)
    assert network_seconds(SOLAR, Method.full(), three, cluster) == pytest.approx(seconds, abs=0.01)
    unknown = replace(cluster, link_gb_per_second=None)
    assert network_seconds(SOLAR, Method.full(), three, unknown) is None
    assert network_seconds(SOLAR, Method.full(), three, replace(unknown, nodes=1)) == 0


@pytest.mark.parametrize(
    ("change", "key", "value", "mention"),
    [
        ({"precision": "int8"}, "precision", "int8", "bf16"),
        ({"zero_stage": 4}, "zero_stage", 4, "0, 1, 2 or 3"),
        ({"micro_batch_size": 0}, "micro_batch_size", 0, "0"),
        ({"offload_parameters": True, "zero_stage": 2}, "zero_stage", 2, "3"),
        ({"offload_optimizer": True}, "zero_stage", 0, "1, 2 or 3"),
    ],
)
def test_invalid_setups_are_refused(change: dict, key: str, value: object, mention: str) -> None:
    with user_error(key, mention, value=value):
        replace(SETUP, **change)


def test_a_device_of_unknown_memory_is_not_judged() -> None:
    assert fits(memory_plan(SOLAR, Method.full(), SETUP), device("cpu")) is None


def test_ranks_that_split_a_sequence_split_its_activations_only() -> None:
    whole = memory_plan(SOLAR, Method.full(), replace(SETUP, sequence_length=32768))
    split = replace(SETUP, sequence_length=32768, sequence_parallel=4)
    parts = memory_plan(SOLAR, Method.full(), split)
    longer = replace(SETUP, sequence_length=8192)
    assert parts == memory_plan(SOLAR, Method.full(), longer)
    assert parts.states == whole.states


@pytest.mark.parametrize(("size", "kv_heads"), [(2, 8), (8, 8), (16, 16)])
def test_split_sequences_are_exchanged_for_heads_in_each_layer(size: int, kv_heads: int) -> None:
    setup = replace(SETUP, sequence_length=32768, sequence_parallel=size)
    numbers = 2 * 32 * 128 + 2 * kv_heads * 128  # queries and outputs, keys and values
    one_pass = 2 * 48 * numbers * 32768 // size  # bf16, all layers
    sent = sequence_traffic(SOLAR, Method.full(), setup, micro_steps=3)
    assert sent == 3 * 2 * one_pass * (size - 1) // size
    assert sequence_traffic(SOLAR, Method.full(recompute=True), setup) == sent // 2
    cluster = replace(cluster_catalogue()["leonardo"], nodes=4, link_gb_per_second=50.0)
    alone = network_seconds(SOLAR, Method.full(), replace(setup, sequence_parallel=1), cluster)
    found = network_seconds(SOLAR, Method.full(), setup, cluster)
    each = cluster.devices_per_node
    outside = each * 2 * one_pass * max(0, size - each) / size / 50e9
    assert found - alone == pytest.approx(outside)


def test_tensor_parallel_ranks_split_layers_and_share_the_rest():
    setup = replace(SETUP, zero_stage=0, data_parallel=1)
    alone = memory_plan(SOLAR, Method.full(), setup)
    split = memory_plan(SOLAR, Method.full(), replace(setup, tensor_parallel=4))
    whole = parameter_count(SOLAR).total - split_parameters(SOLAR)
    for part in ("weights", "gradients", "optimizer"):
        both = getattr(split, part), getattr(alone, part)
        width = both[1] // parameter_count(SOLAR).total
        assert 4 * (both[0] - width * whole) == both[1] - width * whole


def test_zero_3_partitions_over_all_ranks_with_tensor_parallelism_too():
    setup = replace(SETUP, zero_stage=3, data_parallel=8)
    alone = memory_plan(SOLAR, Method.full(), setup)
    split = memory_plan(SOLAR, Method.full(), replace(setup, data_parallel=2, tensor_parallel=4))
    assert (split.weights, split.optimizer) == (alone.weights, alone.optimizer)


def test_a_tensor_parallel_rank_saves_what_a_model_of_its_size_saves():
    part = replace(
        SOLAR, num_heads=SOLAR.num_heads // 4, num_kv_heads=SOLAR.kv_heads // 4,
        head_dim=SOLAR.head_size, ffn_size=SOLAR.ffn_size // 4,
    )  # fmt: skip
    for method in (Method.full(), Method.embeddings(), Method.full(recompute=True)):
        assert held_activations(SOLAR, method, 2, 4) == held_activations(part, method, 2)


def test_tensor_parallel_ranks_in_a_node_send_nothing_to_others():
    setup = replace(SETUP, data_parallel=2, tensor_parallel=4)
    assert tensor_traffic(SOLAR, Method.full(), replace(setup, tensor_parallel=1)) == 0
    layers = 7 * 2 * SOLAR.num_layers * SOLAR.hidden_size * setup.rank_tokens
    ends = 2 * SOLAR.vocab_size * SOLAR.hidden_size + SOLAR.hidden_size * setup.rank_tokens
    assert tensor_traffic(SOLAR, Method.full(), setup) == setup.width * (layers + ends) * 3 // 4
    cluster = replace(cluster_catalogue()["leonardo"], nodes=4, link_gb_per_second=50.0)
    alone = network_seconds(SOLAR, Method.full(), replace(setup, tensor_parallel=1), cluster)
    assert network_seconds(SOLAR, Method.full(), setup, cluster) == alone

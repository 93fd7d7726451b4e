"""What must hold for every model and method: drawn at random, compared with itself."""

import itertools
import random
from dataclasses import replace

import pytest
from tiny_models import random_method

from hpc_llm.accounting import (
    Architecture,
    Method,
    TrainingSetup,
    memory,
    parameter_count,
    step_flops,
    trainable_parameters,
)
from hpc_llm.accounting.activations import held_activations

SEEDS = range(30)


def draw(seed: int) -> tuple[random.Random, Architecture, Method]:
    rng = random.Random(seed)
    kv_heads = rng.choice([1, 2, 4, 8])
    arch = Architecture(
        hidden_size=64 * rng.randint(1, 64),
        num_layers=rng.randint(1, 80),
        num_heads=kv_heads * rng.choice([1, 2, 4]),
        num_kv_heads=kv_heads,
        head_dim=rng.choice([32, 64, 128]),
        ffn_size=rng.randint(100, 30_000),
        vocab_size=rng.randint(1000, 200_000),
        tied_embeddings=rng.random() < 0.3,
    )
    return rng, arch, random_method(rng)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_larger_model_never_costs_less(seed: int) -> None:
    rng, arch, method = draw(seed)
    key = rng.choice(["hidden_size", "num_layers", "ffn_size", "vocab_size"])
    larger = replace(arch, **{key: getattr(arch, key) + 64})
    assert step_flops(larger, method, 2, 128).total > step_flops(arch, method, 2, 128).total
    assert parameter_count(larger).total > parameter_count(arch).total
    assert trainable_parameters(larger, method) >= trainable_parameters(arch, method)
    setup = TrainingSetup(precision="bf16", sequence_length=128)
    assert memory(larger, method, setup).total >= memory(arch, method, setup).total


@pytest.mark.parametrize("seed", SEEDS)
def test_steps_add_up_over_rows_and_documents(seed: int) -> None:
    rng, arch, method = draw(seed)
    one, two = (step_flops(arch, method, rows, 96, "causal").total for rows in (1, 2))
    assert two == 2 * one
    cuts = [0, *sorted(rng.sample(range(1, 96), 3)), 96]
    lengths = [b - a for a, b in itertools.pairwise(cuts)]
    packed = step_flops(arch, method, 1, 96, "causal", lengths).total
    apart = [step_flops(arch, method, 1, length, "causal").total for length in lengths]
    assert packed == sum(apart)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_method_costs_more_than_full_but_adapters_beside_everything(seed: int) -> None:
    _, arch, method = draw(seed)
    full = step_flops(arch, Method.full(recompute=method.recompute), 1, 256)
    step = step_flops(arch, method, 1, 256)
    assert step.forward >= full.forward  # adapters add, freezing does not save here
    if not method.rank:
        assert step.backward <= full.backward
        assert step.recompute == full.recompute
    assert step.recompute <= step.forward


@pytest.mark.parametrize("seed", SEEDS)
def test_causal_attention_is_never_dearer_and_the_rest_is_the_same(seed: int) -> None:
    _, arch, method = draw(seed)
    dense, causal = (step_flops(arch, method, 1, 256, kind) for kind in ("dense", "causal"))
    assert causal.total < dense.total
    single = [step_flops(arch, method, 64, 1, kind).total for kind in ("dense", "causal")]
    assert single[0] == single[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_recomputation_trades_flops_for_memory(seed: int) -> None:
    _, arch, method = draw(seed)
    plain, again = (replace(method, recompute=flag) for flag in (False, True))
    assert step_flops(arch, again, 1, 64).total > step_flops(arch, plain, 1, 64).total
    held = [held_activations(arch, m, 2).layers for m in (plain, again)]
    below_the_head = method.name != "head" or arch.tied_embeddings  # else nothing is held at all
    assert held[1] < held[0] if below_the_head else held[0] == 0

"""The costs of a step as a line through two known steps, against the whole count of each."""

from dataclasses import replace

import pytest

from hpc_llm.accounting import Architecture, Count, Method, StageFlops, step_flops
from hpc_llm.settings.train import RampSettings
from hpc_llm.training.data.batches import plan_batches

ARCHITECTURE = Architecture.from_config(
    {
        "model_type": "llama",
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 80,
        "vocab_size": 200,
        "max_position_embeddings": 512,
    }
)
METHODS = {
    "full": Method.full(),
    "recomputed": Method.full(recompute=True),
    "embeddings": Method.embeddings(),
    "lora": Method.lora(rank=4, targets=("q_proj", "down_proj")),
}


@pytest.mark.parametrize("method", METHODS)
def test_any_rows_and_documents_cost_what_they_cost_one_by_one(method):
    flops = StageFlops.of(ARCHITECTURE, METHODS[method], 512)
    parts = [(3, 512), (1, 504), (7, 8), (40, 96)]  # rows, width
    expected = sum(step_flops(ARCHITECTURE, METHODS[method], *part).total for part in parts)
    found = flops.hardware(
        sum(rows * width for rows, width in parts), sum(rows * width**2 for rows, width in parts)
    )
    assert found == expected
    assert flops.hardware_per_sequence == flops.hardware(512, 512 * 512)
    lengths = [512, 3, 77, 1, 250]
    tokens = sum(lengths)
    step = step_flops(ARCHITECTURE, METHODS[method], 1, tokens, "causal", lengths)
    assert flops.model(tokens, sum(n * n for n in lengths)) == step.model


def test_shorter_rows_of_a_warm_up_cost_less(default_config):
    train = replace(default_config.train, sequence_warmup=RampSettings(start=128, steps=10))
    plan = plan_batches(train, 1, 512)
    flops = StageFlops.of(ARCHITECTURE, METHODS["full"], 512)
    costs = [flops.hardware(plan.tokens, plan.tokens * plan.length(step)) for step in range(12)]
    assert costs[0] == step_flops(ARCHITECTURE, METHODS["full"], 32, 128).total
    assert costs[-1] == step_flops(ARCHITECTURE, METHODS["full"], 8, 512).total
    assert costs == sorted(costs)


@pytest.mark.parametrize("method", METHODS)
def test_counts_at_two_lengths_give_the_costs_of_the_formula(method):
    def count(length):
        dense = step_flops(ARCHITECTURE, METHODS[method], 1, length)
        return Count(length=length, model=dense.model, hardware=dense.total)

    counted = StageFlops.counted(count(100), count(300), 0)
    exact = StageFlops.of(ARCHITECTURE, METHODS[method], 512)
    for name in ("per_token", "per_square", "per_position", "per_squared_width"):
        assert getattr(counted, name) == getattr(exact, name)
    assert counted.source == "counted"


def test_blocks_longer_than_the_sequence_give_no_negative_attention():
    flops = StageFlops.counted(
        Count(length=32, model=6400, hardware=6400), Count(length=64, model=6400, hardware=6400), 1
    )
    assert flops.model(64, 64 * 64) == 6400
    assert flops.per_square == 0

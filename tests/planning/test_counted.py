"""Plans of families without a closed form: counted on the model, in a program of its own."""

from fractions import Fraction

import pytest
from errors import user_error
from tiny import settings, stage_of

from hpc_llm.accounting import Architecture, StageFlops, parameter_count, stage_method
from hpc_llm.planning import make_plan
from hpc_llm.planning.counted import count_stages

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 200, "max_position_embeddings": 256,
}  # fmt: skip
LENGTH = 64


@pytest.fixture(scope="module")
def counted():
    """Counts of a Llama, which has a closed form too."""
    stages = {name: (200, stage_of(name)) for name in ("full", "embeddings", "lora")}
    return count_stages({"model_type": "llama", **SIZES}, stages, LENGTH)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["full", "embeddings", "lora"])
def test_counts_equal_the_closed_form_of_a_family_that_has_one(counted, name, recompute):
    arch = Architecture.from_config({"model_type": "llama", **SIZES})
    method = stage_method(stage_of(name), recompute=recompute)
    exact, found = StageFlops.of(arch, method, LENGTH), counted[name].flops(recompute)
    for key in ("per_token", "per_square", "per_position", "per_squared_width", "six_n"):
        assert Fraction(getattr(found, key)) == getattr(exact, key)
    assert found.hardware_per_sequence == exact.hardware_per_sequence
    assert counted[name].parameters.total == parameter_count(arch).total


@pytest.fixture(scope="module")
def olmo2():
    """The plan of a tiny OLMo-2."""
    cfg = settings("experiment=example", "tokenizer.vocab_size=512", "cluster=a100_4x8")
    cfg.model.architecture = {"model_type": "olmo2", **SIZES}
    return make_plan(cfg)


def test_a_family_without_a_closed_form_is_planned_and_labelled(olmo2):
    assert all(row.flops > 0 and row.memory is None and row.fits is None for row in olmo2.rows)
    full = next(row for row in olmo2.rows if row.method == "full")
    assert full.share_of_full == 1
    assert [note for note in olmo2.notes if "counted on the model" in note]
    assert olmo2.token_cost_ratio is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_tied_head_is_counted_once(tied):
    config = {"model_type": "olmo2", **SIZES, "tie_word_embeddings": tied}
    (found,) = count_stages(config, {"embeddings": (200, stage_of("embeddings"))}, LENGTH).values()
    assert found.parameters.head == (0 if tied else 200 * 32)
    assert found.trainable == (1 if tied else 2) * 200 * 32


def test_a_family_that_nobody_knows_is_refused():
    cfg = settings("experiment=example")
    cfg.model.architecture = {"model_type": "llamma", **SIZES}
    with user_error("model_type", "transformers", value="llamma"):
        make_plan(cfg)


def test_adapters_on_stacked_experts_are_counted() -> None:
    config = {"model_type": "mixtral", **SIZES, "num_local_experts": 3}
    names = ["experts.gate_up_proj", "experts.down_proj"]
    stages = {
        kind: (200, stage_of("lora", rank=2, train_embeddings=False, target_parameters=targets))
        for kind, targets in (("plain", []), ("experts", names))
    }
    found = count_stages(config, stages, LENGTH)
    assert found["plain"].without_adapters == ("down_proj", "gate_up_proj")
    assert found["experts"].without_adapters == ()
    more = 2 * 3 * 2 * ((32 + 2 * 48) + (48 + 32))  # layers, experts, rank, in + out
    assert found["experts"].trainable == found["plain"].trainable + more
    wrong = {"lora": (200, stage_of("lora", target_parameters=["experts.w9"]))}
    with user_error("stages.lora.target_parameters", "experts.down_proj", value="experts.w9"):
        count_stages(config, wrong, LENGTH)

"""Rotary positions of a model that is stretched, saved and loaded: those of transformers."""

import json

import pytest
import torch
from errors import user_error
from tiny import settings
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hpc_llm.surgery.positions import stretch_positions

SHAPE = {
    "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "vocab_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
FACTOR = 4.0


def stretched(folder, rope_type):
    """Return a tiny model loaded from the folder of a stretched one, and its `config.json`."""
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    stretch_positions(model.config, {"rope_type": rope_type, "factor": FACTOR})
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    return AutoModelForCausalLM.from_pretrained(folder), written


@pytest.mark.parametrize("rope_type", ["linear", "yarn"])
def test_frequencies_are_those_of_the_published_form_of_the_configuration(tmp_path, rope_type):
    model, written = stretched(tmp_path, rope_type)
    published = {"type": rope_type, "factor": FACTOR, "original_max_position_embeddings": 64}
    shape = {**SHAPE, "max_position_embeddings": 256}
    other = LlamaForCausalLM(LlamaConfig(**shape, rope_theta=10000.0, rope_scaling=published))
    found, expected = model.model.rotary_emb, other.model.rotary_emb
    torch.testing.assert_close(found.inv_freq, expected.inv_freq, rtol=0, atol=0)
    assert found.attention_scaling == expected.attention_scaling
    assert written["max_position_embeddings"] == 256
    assert written["rope_parameters"]["rope_type"] == rope_type


def test_linear_scaling_divides_all_frequencies_and_yarn_keeps_the_highest(tmp_path):
    plain = 10000.0 ** (-torch.arange(0, 32, 2) / 32)
    (tmp_path / "linear").mkdir()
    linear, _ = stretched(tmp_path / "linear", "linear")
    torch.testing.assert_close(linear.model.rotary_emb.inv_freq, plain / FACTOR)
    yarn, _ = stretched(tmp_path, "yarn")
    frequencies = yarn.model.rotary_emb.inv_freq
    torch.testing.assert_close(frequencies[0], plain[0])
    torch.testing.assert_close(frequencies[-1], plain[-1] / FACTOR)
    # Peng et al. 2023, equation 22: 1 / sqrt(t) = 0.1 ln(s) + 1
    assert yarn.model.rotary_emb.attention_scaling == pytest.approx(1 + 0.1386294)


def test_a_model_that_is_scaled_already_is_refused():
    config = LlamaConfig(**SHAPE)
    stretch_positions(config, {"rope_type": "yarn", "factor": FACTOR})
    with user_error("model.rope_scaling", "llama", "yarn", value="linear"):
        stretch_positions(config, {"rope_type": "linear", "factor": 2})


@pytest.mark.parametrize(
    ("words", "key", "mentions"),
    [("{rope_type: dynamic, factor: 2}", "model.rope_scaling.rope_type", ["yarn"]),
     ("{rope_type: yarn}", "model.rope_scaling.factor", []),
     ("{rope_type: yarn, factor: 1}", "model.rope_scaling.factor", []),
     ("{rope_type: other, factor: 2}", "model.rope_scaling.rope_type", ["linear"]),
     ("{rope_type: yarn, factor: 2, rope_theta: 1}", "model.rope_scaling", ["beta_fast"])],
)  # fmt: skip
def test_wrong_scaling_is_refused_when_it_is_composed(words, key, mentions):
    with user_error(key, *mentions):
        settings(f"model.rope_scaling={words}")


def test_a_right_one_stretches_the_positions():
    model = settings("model.rope_scaling={rope_type: yarn, factor: 2.5}").model
    assert model.stretch == 2.5

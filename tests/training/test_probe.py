"""Whether packed documents see each other, asked of the model as it trains."""

import families
import pytest
import torch
from errors import user_error

from hpc_llm.surgery.loading import takes_positions
from hpc_llm.training.probe import keeps_apart, probe_packing

APART = ("llama", "olmo2", "gemma3_text", "qwen3_moe", "phi3", "gpt2", "cohere2", "granite")
JOINED = ("opt", "falcon", "gpt_oss", "mamba", "bloom", "jamba", "biogpt")


def by_hand(model):
    """The largest change of a document's logits when its neighbour changes, in training mode."""
    first, other, second = torch.randint(9, 90, (3, 2, 9), generator=torch.manual_seed(3))
    inputs = {"use_cache": False}
    if takes_positions(model):
        inputs["position_ids"] = torch.arange(9).repeat(2, 2)
    model.train()
    logits = [
        model(input_ids=torch.cat([one, second], dim=1), **inputs).logits[:, 9:]
        for one in (first, other)
    ]
    return float((logits[0] - logits[1]).abs().max())


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", [*APART, *JOINED])
def test_the_answer_is_what_a_packed_row_shows(family, attention):
    model = without_dropout(families.tiny_model(family))
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip(f"{type(model).__name__} has no sdpa")
    model.set_attn_implementation(attention)
    if model.supports_gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    leak = by_hand(model)
    assert keeps_apart(model, 2) == (family in APART)
    assert (leak < 1e-5) == (family in APART)


def test_the_model_is_left_as_it_was():
    model = families.tiny_model("llama").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probe_packing(model)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("family", "apart"), [("llama", True), ("mixtral", True), ("opt", False)])
def test_rounding_is_no_leak_and_hides_none(family, apart, dtype):
    model = families.tiny_model(family).to(dtype)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # a trained model's documents do see much
    assert keeps_apart(model) == apart


def test_a_model_that_looks_ahead_is_refused():
    config = families.tiny_config("bert")
    config.is_decoder = False
    torch.manual_seed(0)
    model = families.AutoModelForCausalLM.from_config(config)
    with user_error("model.path", "later tokens", value="bert"):
        keeps_apart(model)

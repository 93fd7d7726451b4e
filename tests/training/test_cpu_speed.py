"""What makes steps on a CPU faster and smaller computes what transformers computes."""

import copy

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hpc_llm.training import products
from hpc_llm.training.attention import attend_by_document
from hpc_llm.training.layers import keep_less
from hpc_llm.training.losses import CausalLoss
from hpc_llm.training.products import multiply, speed_up_products

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 60, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
    "mixtral": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 2}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8}),
}


def build(family, dtype=torch.float32, **settings):
    configuration, causal, special = FAMILIES[family]
    torch.manual_seed(0)
    model = causal(configuration(**{**SIZES, **special, **settings})).to(dtype).train()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.1)
    return model


@pytest.fixture
def batch():
    """Two rows with documents of 20, 9 and 3, and of 32 tokens."""
    torch.manual_seed(1)
    ids = torch.randint(0, 60, (2, 32))
    first = torch.cat([torch.arange(n) for n in (20, 9, 3)])
    positions = torch.stack([first, torch.arange(32)])
    labels = ids.roll(-1, 1).masked_fill(positions.roll(-1, 1) == 0, -100)
    return ids, positions, labels


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = CausalLoss(model, model)(*batch)
    loss.backward()
    return loss.detach(), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_step_is_the_same(family, frozen, batch):
    model = build(family)
    if frozen:
        model.model.layers.requires_grad_(False)
    wanted = loss_and_gradients(model, batch)
    assert attend_by_document(model)
    assert keep_less(model) >= 5  # norms, and MLPs where they are no experts
    found = loss_and_gradients(model, batch)
    assert model.config._attn_implementation != "sdpa"
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_attention_falls_back_where_a_window_or_another_kernel_is_asked_for():
    assert not attend_by_document(build("mistral", sliding_window=8))
    assert not attend_by_document(build("llama", attn_implementation="eager"))


def test_less_is_kept_for_the_backward_pass(batch):
    model = build("llama")
    before = kept_bytes(model, batch)
    attend_by_document(model)
    keep_less(model)
    assert kept_bytes(model, batch) < 0.7 * before


def kept_bytes(model, batch):
    """Return the bytes of what autograd keeps, weights left out, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that none is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(input_ids=batch[0], position_ids=batch[1], use_cache=False)
    return sum(size for size, _ in kept.values())


@pytest.fixture
def emulated(monkeypatch):
    """A CPU without instructions for bf16."""
    monkeypatch.setattr(products, "_emulated", lambda dtype: dtype == torch.bfloat16)


@pytest.mark.usefixtures("emulated")
def test_products_in_fp32_are_at_least_as_exact(batch):
    exact = loss_and_gradients(build("qwen2"), batch)  # with biases
    plain = loss_and_gradients(build("qwen2", torch.bfloat16), batch)
    model = build("qwen2", torch.bfloat16)
    assert speed_up_products(model) == 2 * 7 + 1
    attend_by_document(model)
    keep_less(model)
    faster = loss_and_gradients(model, batch)
    assert {g.dtype for g in faster[1].values()} == {torch.bfloat16}
    assert error(faster, exact) < 1.1 * error(plain, exact)


def error(found, exact):
    """Return the mean relative error of the gradients."""
    errors = [
        ((found[1][name].float() - wanted).norm() / wanted.norm()).item()
        for name, wanted in exact[1].items()
        if not name.endswith("k_proj.bias")  # 0 but for rounding
    ]
    return sum(errors) / len(errors)


@pytest.mark.usefixtures("emulated")
def test_a_product_of_bf16_is_the_exact_one_rounded():
    a, b = torch.randn(5, 300).bfloat16(), torch.randn(300, 7).bfloat16()
    exact = (a.double() @ b.double()).float()
    torch.testing.assert_close(multiply(a, b), exact.bfloat16(), rtol=2**-8, atol=1e-6)


def test_nothing_changes_where_the_cpu_multiplies_it_natively(monkeypatch):
    monkeypatch.setattr(products, "_emulated", lambda dtype: False)
    model = build("llama", torch.bfloat16)
    assert speed_up_products(model) == 0
    assert speed_up_products(copy.deepcopy(model).float()) == 0

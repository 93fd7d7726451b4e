"""What makes steps on a CPU faster and smaller computes what transformers computes."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
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

from hpc_llm.training.kernels import products
from hpc_llm.training.kernels.attention import attend_by_document
from hpc_llm.training.kernels.layers import keep_less
from hpc_llm.training.kernels.losses import CausalLoss
from hpc_llm.training.kernels.low_rank import join_adapters
from hpc_llm.training.kernels.products import multiply, speed_up_products

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


def adapted(family, dtype=torch.float32, **settings):
    """A model with adapters on all linear layers, whose second factors are not 0 any more."""
    model = build(family, dtype)
    targets = "all-linear" if family != "mixtral" else ["q_proj", "o_proj"]
    get_peft_model(model, LoraConfig(r=3, lora_alpha=5, target_modules=targets, **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.to(dtype)  # as DeepSpeed does


@pytest.mark.parametrize("family", FAMILIES)
def test_the_step_of_adapters_is_the_same(family, batch):
    model = adapted(family)
    wanted = loss_and_gradients(model, batch)
    assert attend_by_document(model)
    keep_less(model)
    assert join_adapters(model) == 2 * (2 if family == "mixtral" else 7)
    found = loss_and_gradients(model, batch)
    assert found[1].keys() == wanted[1].keys()
    assert all("lora_" in name for name in found[1])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=3e-5)


def test_joined_adapters_can_be_merged_and_disabled(batch):
    model = adapted("llama")
    plain = loss_and_gradients(build("llama"), batch)[0]
    both = loss_and_gradients(model, batch)[0]
    assert abs(both - plain) > 0.1
    assert join_adapters(model) == 14
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    with torch.no_grad():
        assert abs(CausalLoss(model, model)(*batch) - plain) < 1e-3
        for layer in layers:
            layer.enable_adapters(True)
            layer.merge()
        assert abs(CausalLoss(model, model)(*batch) - both) < 1e-3


def test_joined_adapters_follow_autocast(batch):
    model = adapted("llama")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model(batch[0]).logits
        join_adapters(model)
        assert model(batch[0]).logits.equal(wanted)


def test_adapters_of_another_kind_stay_as_they_are():
    assert join_adapters(adapted("llama", use_dora=True)) == 0
    assert join_adapters(adapted("llama", lora_dropout=0.1)) == 0
    assert join_adapters(adapted("llama", lora_bias=True)) == 0
    assert join_adapters(build("llama")) == 0


def test_generation_with_kept_keys_is_the_same(batch):
    model = build("qwen2").eval()
    asked = {"input_ids": batch[0][:1, :8], "max_new_tokens": 8, "do_sample": False}
    wanted = model.generate(**asked, pad_token_id=0)
    changed = build("qwen2").eval()
    attend_by_document(changed)
    changed.set_attn_implementation("sdpa")
    assert changed.generate(**asked, pad_token_id=0).equal(wanted)


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
    """Return the bytes of what autograd keeps, weights excluded, each storage once."""
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


@pytest.mark.usefixtures("emulated")
def test_adapters_in_fp32_products_are_at_least_as_exact():
    torch.manual_seed(2)
    layer = adapted("qwen2").model.layers[0].self_attn.q_proj  # with a bias
    x, g = torch.randn(2, 64, 32).bfloat16(), torch.randn(2, 64, 32).bfloat16()
    for parameter in layer.parameters():
        parameter.data = parameter.bfloat16().float()
    exact = values_and_gradients(copy.deepcopy(layer).double(), x.double(), g.double())
    layer.bfloat16()
    plain = values_and_gradients(layer, x, g)
    assert join_adapters(layer) == 1
    joined = values_and_gradients(layer, x, g)
    assert {t.dtype for t in joined} == {torch.bfloat16}
    for ours, theirs, wanted in zip(joined, plain, exact, strict=True):
        assert (ours - wanted).norm() < 1.05 * (theirs - wanted).norm()


def values_and_gradients(layer, x, g):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(g)
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]


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

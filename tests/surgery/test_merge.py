"""A merged model equals the unmerged one, or the merge is refused by the adapter's name."""

import copy

import families
import peft
import pytest
import torch
from errors import user_error
from tiny import stage_of
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from hpc_llm.evaluation.lora_scale import scaled
from hpc_llm.surgery.merge import attach_adapter, merge_adapter, save_adapter
from hpc_llm.surgery.trainable import make_trainable, not_adapted

IDS = torch.tensor([[1, 7, 21, 3, 44, 9, 60, 5]])


def llama(*, tied: bool = False):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=64, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def trained(base, config):
    """Return `base` with an adapter whose every parameter was moved by training."""
    model = peft.get_peft_model(base, config).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


CAUSAL = {"task_type": "CAUSAL_LM"}
LORA = {"r": 4, "lora_alpha": 12, "target_modules": ["q_proj", "down_proj"], **CAUSAL}
EXACT = {
    "lora": peft.LoraConfig(**LORA),
    "rslora": peft.LoraConfig(**LORA, use_rslora=True),
    "all linear": peft.LoraConfig(**{**LORA, "target_modules": "all-linear"}),
    "patterns": peft.LoraConfig(**LORA, rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 3}),
    "target_parameters": peft.LoraConfig(**LORA, target_parameters=["mlp.up_proj.weight"]),
    "untied head": peft.LoraConfig(**{**LORA, "target_modules": ["lm_head"]}),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_merges_is_the_trained_model(name):
    base = llama()
    before = logits(base)
    model = trained(copy.deepcopy(base), EXACT[name])
    expected = logits(model)
    assert (expected - before).abs().max() > 0.05
    torch.testing.assert_close(logits(merge_adapter(model, 1.0)), expected, atol=1e-5, rtol=1e-5)


def test_transposed_layers_of_gpt2_merge():
    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64)).eval()
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, **CAUSAL
    )
    model = trained(base, config)
    expected = logits(model)
    torch.testing.assert_close(logits(merge_adapter(model, 1.0)), expected, atol=1e-5, rtol=1e-5)


ATTENTION = ["q_proj", "v_proj"]
TARGETS = {"target_modules": ATTENTION, **CAUSAL}
REFUSED = {
    "IA3": peft.IA3Config(feedforward_modules=[], **TARGETS),
    "LOHA": peft.LoHaConfig(r=2, **TARGETS),
    "LOKR": peft.LoKrConfig(r=2, **TARGETS),
    "ADALORA": peft.AdaLoraConfig(r=2, total_step=10, **TARGETS),
    "VERA": peft.VeraConfig(r=2, **TARGETS),
    "OFT": peft.OFTConfig(oft_block_size=4, **TARGETS),
    "LN_TUNING": peft.LNTuningConfig(target_modules=["input_layernorm"], **CAUSAL),
    "PROMPT_TUNING": peft.PromptTuningConfig(num_virtual_tokens=3, **CAUSAL),
    "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=3, **CAUSAL),
    "DoRA": peft.LoraConfig(**LORA, use_dora=True),
    "modules_to_save": peft.LoraConfig(**LORA, modules_to_save=["lm_head"]),
    "trainable_token_indices": peft.LoraConfig(**LORA, trainable_token_indices=[3, 5]),
    "bias=lora_only": peft.LoraConfig(**LORA, bias="lora_only"),
    "lora_bias": peft.LoraConfig(**LORA, lora_bias=True),
    "a shared weight": peft.LoraConfig(**LORA, layer_replication=[(0, 2), (1, 2)]),
    "ALoraLinearVariant": peft.LoraConfig(**LORA, alora_invocation_tokens=[21, 3]),
    "P_TUNING": peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **CAUSAL),
    "TRAINABLE_TOKENS": peft.TrainableTokensConfig(
        token_indices=[3, 4], target_modules=["embed_tokens"]
    ),
    "LoRA on Embedding": peft.LoraConfig(**{**LORA, "target_modules": ["embed_tokens"]}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_known_exact_merge_is_refused_by_name(name):
    model = trained(llama(), REFUSED[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with user_error("adapter", value=name):
        merge_adapter(model, 1.0)
    with user_error("adapter", value=name), scaled(model, 0.5):
        pass
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_tied_head_is_refused_as_the_embeddings_would_change():
    model = trained(llama(tied=True), peft.LoraConfig(**{**LORA, "target_modules": ["lm_head"]}))
    with user_error("adapter", "embed_tokens", value="a tied LM head"):
        merge_adapter(model, 1.0)


def test_two_active_adapters_and_merged_ones_are_refused():
    model = trained(llama(), EXACT["lora"])
    model.add_adapter("other", peft.LoraConfig(**LORA))
    model.base_model.set_adapter(["default", "other"])
    with user_error("adapter", value="default, other"):
        merge_adapter(model, 1.0)
    model = trained(llama(), EXACT["lora"])
    model.merge_adapter()
    with user_error("adapter", "merged"):
        merge_adapter(model, 1.0)


@pytest.mark.parametrize("name", ["lora", "IA3"])
def test_an_adapter_folder_of_others_is_merged_or_refused(name, tmp_path):
    model = trained(llama(), {**EXACT, **REFUSED}[name])
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    attached = attach_adapter(llama(), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(attached), expected)
    if name == "lora":
        merged = merge_adapter(attached, 1.0)
        torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    else:
        with user_error("adapter", value=name):
            merge_adapter(attached, 1.0)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_adapters_on_stacked_experts_are_saved_and_merged_exactly(family, tmp_path):
    names = ["experts.gate_up_proj", "down_proj"]
    stage = stage_of("lora", target_parameters=names, train_embeddings=False)
    trainable = make_trainable(families.tiny_model(family), stage, False, 1)
    assert not_adapted(trainable) == []
    assert (
        sum("experts" in name for name in trainable.adapters) == 2 * 2 * 2
    )  # factors, weights, layers
    for value in trainable.adapters.values():
        torch.nn.init.normal_(value, std=0.1)
    expected = families.logits(trainable.model)
    before = families.logits(families.tiny_model(family))
    assert not torch.allclose(expected, before, atol=1e-2)
    save_adapter(trainable.model, tmp_path, trainable.adapters, {}, None)
    attached = attach_adapter(families.tiny_model(family), tmp_path)
    torch.testing.assert_close(families.logits(attached), expected)
    merged = merge_adapter(attached, 1.0)
    torch.testing.assert_close(families.logits(merged), expected, rtol=1e-3, atol=1e-4)


def test_stacked_experts_that_a_model_lacks_are_refused():
    for family, mention in (("mixtral", "experts.down_proj"), ("llama", "[]")):
        stage = stage_of("lora", target_parameters=["experts.w9"])
        with user_error("target_parameters", mention, value="experts.w9"):
            make_trainable(families.tiny_model(family), stage, False, 1)

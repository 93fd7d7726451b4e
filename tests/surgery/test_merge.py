"""Merging real adapters of peft: equal logits, or an error that names the adapter."""

import copy

import peft
import pytest
import torch
from errors import user_error
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from hpc_llm.evaluation.lora_scale import scaled
from hpc_llm.surgery.merge import attach_adapter, merge_adapter

IDS = torch.tensor([[1, 7, 21, 3, 34, 9, 30, 5]])
QV = ["q_proj", "v_proj"]


def llama(tied=False):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=40, initializer_range=0.3, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def randomised(model):
    """Give every parameter of an adapter a random value, as if it had been trained."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def lora(**options):
    return LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": QV} | options)


EXACT = {
    "plain": lora(),
    "rslora": lora(use_rslora=True),
    "head": lora(target_modules=["o_proj", "lm_head"]),
    "patterns": lora(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 5}),
    "pissa": lora(init_lora_weights="pissa"),
    "dropout": lora(lora_dropout=0.5),
}


@pytest.mark.parametrize("name", EXACT)
def test_merged_equals_unmerged(name):
    base = logits(llama())
    model = randomised(get_peft_model(llama(), copy.deepcopy(EXACT[name])))
    trained = logits(model)
    assert (trained - base).abs().max() > 0.1
    with scaled(model, 0.5):
        half = logits(model)
    merged = merge_adapter(copy.deepcopy(model), 0.5)
    torch.testing.assert_close(logits(merged), half, atol=1e-4, rtol=1e-4)
    merged = merge_adapter(model, 1.0)
    assert isinstance(merged, LlamaForCausalLM)
    torch.testing.assert_close(logits(merged), trained, atol=1e-4, rtol=1e-4)


def test_an_adapter_folder_of_peft_attaches_and_merges(tmp_path):
    model = randomised(get_peft_model(llama(), lora(use_rslora=True)))
    trained = logits(model)
    model.save_pretrained(tmp_path)
    again = attach_adapter(llama(), tmp_path)
    assert torch.equal(logits(again), trained)
    merged = merge_adapter(again, 1.0)
    torch.testing.assert_close(logits(merged), trained, atol=1e-4, rtol=1e-4)


def test_the_transposed_weights_of_gpt2_merge():
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, initializer_range=0.3)
    base = GPT2LMHeadModel(config).eval()
    before = logits(base)
    options = lora(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    model = randomised(get_peft_model(base, options))
    trained = logits(model)
    assert (trained - before).abs().max() > 0.1
    merged = merge_adapter(model, 1.0)
    torch.testing.assert_close(logits(merged), trained, atol=1e-4, rtol=1e-4)
    assert merged.lm_head.weight is merged.transformer.wte.weight


FAMILY = {"task_type": "CAUSAL_LM"}
OTHER_TUNERS = {
    "IA3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "LOHA": peft.LoHaConfig(r=4, target_modules=QV),
    "LOKR": peft.LoKrConfig(r=4, target_modules=QV),
    "VERA": peft.VeraConfig(r=4, target_modules=["q_proj"]),
    "OFT": peft.OFTConfig(r=0, oft_block_size=4, target_modules=QV),
    "ADALORA": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, target_modules=QV),
    "LN_TUNING": peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "TRAINABLE_TOKENS": peft.TrainableTokensConfig(
        token_indices=[3, 4], target_modules=["embed_tokens"]
    ),
    "PROMPT_TUNING": peft.PromptTuningConfig(num_virtual_tokens=3, **FAMILY),
    "P_TUNING": peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **FAMILY),
    "PREFIX_TUNING": peft.PrefixTuningConfig(num_virtual_tokens=3, **FAMILY),
}


def refuses(model, key, *mentions, value=...):
    """Check that merging and scaling refuse `model` and leave it as it is."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with user_error(key, *mentions, value=value):
        merge_adapter(model, 1.0)
    with user_error(key, *mentions, value=value), scaled(model, 0.5):
        pass
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", OTHER_TUNERS)
def test_other_tuners_are_refused_by_name(kind, tmp_path):
    model = randomised(get_peft_model(llama(), copy.deepcopy(OTHER_TUNERS[kind])))
    refuses(model, "adapter.peft_type", "LORA", value=kind)
    model.save_pretrained(tmp_path)
    with user_error("adapter.peft_type", "LORA", value=kind):
        merge_adapter(attach_adapter(llama(), tmp_path), 1.0)


MLP = "model.layers.0.mlp.up_proj.weight"
OPTIONS = {
    "use_dora": lora(use_dora=True),
    "modules_to_save": lora(modules_to_save=["lm_head"]),
    "trainable_token_indices": lora(trainable_token_indices=[3, 4]),
    "bias": lora(bias="lora_only"),
    "lora_bias": lora(lora_bias=True),
    "target_parameters": lora(target_modules=[], target_parameters=[MLP.removeprefix("model.")]),
    "layer_replication": lora(layer_replication=[(0, 2), (1, 2)]),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_a_merge_would_lose_are_refused(option):
    model = llama()
    if "bias" in option:  # base layers need biases for these options
        for block in model.model.layers:
            for name in QV:
                linear = getattr(block.self_attn, name)
                linear.bias = torch.nn.Parameter(torch.zeros(linear.out_features))
    model = randomised(get_peft_model(model, copy.deepcopy(OPTIONS[option])))
    refuses(model, f"adapter.{option}", "LoRA")


def test_lora_on_embeddings_is_refused():
    model = get_peft_model(llama(), lora(target_modules=["embed_tokens", "q_proj"]))
    refuses(randomised(model), "adapter.layer", "embed_tokens", value="Embedding")


def test_lora_on_a_tied_head_is_refused():
    with pytest.warns(UserWarning, match="tie"):
        model = get_peft_model(llama(tied=True), lora(target_modules=["lm_head", "q_proj"]))
    refuses(randomised(model), "adapter.target_modules", "tied", value="base_model.model.lm_head")


def test_variants_of_the_lora_layer_are_refused():
    alora = lora(alora_invocation_tokens=[21, 3], **FAMILY)
    model = randomised(get_peft_model(llama(), alora))
    refuses(model, "adapter.variant", "q_proj", value="ALoraLinearVariant")


def test_exactly_one_active_unmerged_adapter_is_merged():
    model = get_peft_model(llama(), lora())
    model.add_adapter("second", lora(r=2))
    randomised(model)
    model.base_model.set_adapter(["default", "second"])
    refuses(model, "adapter", "set_adapter", value="default,second")
    model.set_adapter("second")
    trained = logits(model)
    with model.disable_adapter():
        refuses(model, "adapter", "set_adapter", value="disabled")
    merged = copy.deepcopy(model)
    merged.merge_adapter()
    refuses(merged, "adapter", "q_proj", value="merged")
    torch.testing.assert_close(logits(merge_adapter(model, 1.0)), trained, atol=1e-4, rtol=1e-4)

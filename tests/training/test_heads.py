"""What models do around their heads, found by trying, against what they compute."""

import pytest
import torch
import transformers

from hpc_llm.training.kernels.heads import Head, head_of

LLAMA = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "intermediate_size": 80}  # fmt: skip
FAMILIES = {
    "llama": (LLAMA, Head()),
    "qwen2": (LLAMA | {"tie_word_embeddings": True}, Head()),
    "mixtral": (LLAMA | {"num_local_experts": 4}, Head()),
    "gemma2": (LLAMA | {"head_dim": 12}, Head(softcap=30.0)),
    "granite": (LLAMA | {"logits_scaling": 8.0}, Head(scale=1 / 8)),
    "hyperclovax": (LLAMA | {"logits_scaling": 8.0}, Head(scale=8.0)),  # the same name, inverted
    "cohere": (LLAMA | {"eos_token_id": 1, "logit_scale": 0.25}, Head(scale=0.25)),
    "opt": ({"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80,
             "word_embed_proj_dim": 48}, Head()),
    "gpt2": ({"n_embd": 48, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 1},
             Head()),
    "phi": (LLAMA, None),  # its head has a bias
}  # fmt: skip


def build(family):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, vocab_size=120, **FAMILIES[family][0])
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    torch.nn.init.normal_(model.get_output_embeddings().weight, std=3.0)  # logits beyond the cap
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_is_found_and_gives_the_logits_of_the_model(family):
    model = build(family)
    head = head_of(model)
    assert head == FAMILIES[family][1]
    if head is not None:
        ids = torch.randint(2, 120, (2, 9))
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        products = hidden @ model.get_output_embeddings().weight.T
        logits = model(input_ids=ids, use_cache=False).logits
        assert logits.abs().max() > 2
        torch.testing.assert_close(head.logits(products), logits, rtol=1e-5, atol=1e-5)


def test_a_model_that_does_something_else_is_not_taken_for_another():
    model = build("llama")
    plain = type(model).forward

    def shifted(self, *arguments, **options):
        output = plain(self, *arguments, **options)
        output.logits = output.logits + torch.arange(120)
        return output

    model.forward = shifted.__get__(model)
    assert head_of(model) is None
    del model.forward
    norm, head = torch.nn.LayerNorm(48), model.lm_head
    head.register_forward_pre_hook(lambda module, given: (norm(given[0]),))
    assert head_of(model) is None

"""The merging factor on the scale of LoRA layers against weights merged by hand."""

import copy

import pytest
import torch
from errors import user_error
from peft import LoraConfig, get_peft_model

from hpc_llm.evaluation.lora_scale import scaled

IDS = torch.tensor([[1, 7, 21, 3, 44, 9, 60, 5]])


def adapted(base, targets, **options):
    """Wrap `base` with adapters whose factors are both random."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules=targets, **options)
    model = get_peft_model(base, config)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


TARGETS = [["q_proj"], ["v_proj", "down_proj"], "all-linear", ["o_proj", "lm_head"]]


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
def test_phi_equals_weights_merged_by_hand(llama, targets, rslora):
    merged = copy.deepcopy(llama)
    base = logits(llama)
    model = adapted(llama, targets, use_rslora=rslora)
    trained = logits(model)
    weights = dict(model.named_parameters())
    lam = 12 / (4**0.5 if rslora else 4)
    for name, W in merged.named_parameters():
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{layer}.lora_A.default.weight" in weights:
            A, B = (weights[f"{layer}.lora_{x}.default.weight"] for x in "AB")
            W.data += 0.5 * lam * B @ A
    assert (trained - base).abs().max() > 0.1
    with scaled(model, 0.0):
        assert torch.equal(logits(model), base)
    with scaled(model, 1.0):
        assert torch.equal(logits(model), trained)
    with scaled(model, 0.5):
        torch.testing.assert_close(logits(model), logits(merged), atol=1e-5, rtol=1e-5)
    assert torch.equal(logits(model), trained)


def test_scales_come_back_exactly_after_an_error(llama):
    model = adapted(llama, ["q_proj", "up_proj"])
    trained = logits(model)
    with pytest.raises(KeyboardInterrupt), scaled(model, 1 / 3), scaled(model, 0.7):
        raise KeyboardInterrupt
    assert torch.equal(logits(model), trained)


def test_blocks_multiply(llama):
    model = adapted(llama, ["q_proj", "up_proj"])
    with scaled(model, 0.25):
        expected = logits(model)
    with scaled(model, 0.5), scaled(model, 0.5):
        assert torch.equal(logits(model), expected)


def test_models_without_a_linear_factor_are_refused(llama):
    with user_error("adapter", "LoRA"), scaled(llama, 0.5):
        pass
    merged = adapted(copy.deepcopy(llama), ["q_proj"])
    merged.merge_adapter()
    with user_error("adapter", "merged"), scaled(merged, 0.5):
        pass
    dora = adapted(llama, ["q_proj"], use_dora=True)
    with user_error("adapter", value="DoRA"), scaled(dora, 0.5):
        pass

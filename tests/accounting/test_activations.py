"""Activation bytes equal those of `saved_tensors_hooks` on real models (unique storages)."""

import random

import pytest
import torch
from tiny_models import random_llama, random_method, trained_model

from hpc_llm.accounting import Architecture, Method
from hpc_llm.accounting.activations import held_activations

ROWS, LENGTH = 3, 16


def kept_bytes(model: torch.nn.Module, vocab_size: int) -> int:
    """Return the bytes of floating-point tensors that the forward pass keeps for the backward."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if tensor.is_floating_point() and tensor.numel() > 1 and place not in weights:
            kept[place] = tensor  # held, so that no storage is used twice
        return tensor

    tokens = torch.randint(0, vocab_size, (ROWS, LENGTH))
    positions = torch.arange(LENGTH).repeat(ROWS, 1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=tokens, labels=tokens, position_ids=positions)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("seed", range(20))
def test_kept_bytes_equal_those_of_autograd(seed: int, dtype: torch.dtype) -> None:
    rng = random.Random(1000 + seed)
    config, method = random_llama(rng), random_method(rng, recompute=False)
    model = trained_model(config, method, attention="sdpa", dtype=dtype)
    arch = Architecture.from_config(config)
    held = held_activations(arch, method, dtype.itemsize).held
    assert held * ROWS * LENGTH == kept_bytes(model, arch.vocab_size)


def test_the_closed_forms_for_a_layer() -> None:
    h, D, K, F, a, r = 4096, 4096, 1024, 14336, 32, 64
    arch = Architecture(
        hidden_size=h, num_layers=48, num_heads=a, num_kv_heads=8, ffn_size=F, vocab_size=32000
    )
    rest = 4 * D + 4 * K + 4 * a + 8
    for method, layer in [
        (Method.full(), 16 * h + 8 * F + rest),
        (Method.embeddings(), 8 * h + 6 * F + rest),
        (Method.lora(r, embeddings=True), 12 * h + 8 * F + 14 * r + rest),
        (Method.full(recompute=True), 2 * h),
    ]:
        assert held_activations(arch, method, 2).layers == 48 * layer
    assert held_activations(arch, Method.full(recompute=True), 2).one_layer == 16 * h + 8 * F + rest

"""Checks that a model has no tables per token besides input embedding and LM head.

Such tables (per-layer embeddings, routing by token id, an embedding with extra rows) are indexed by
token ids: with a new vocabulary they would be those of other tokens.
"""

import torch
from transformers import PreTrainedModel

from hpc_llm.errors import UserError

__all__ = ["check_replaced", "check_tables"]

KEY = "model.path"
FIX = "choose another model: only input embedding and LM head can follow a new vocabulary"


def check_tables(model: PreTrainedModel) -> None:
    """Raise `UserError` if `model` has another table with as many rows as its input embedding."""
    inputs, head = model.get_input_embeddings(), model.get_output_embeddings()
    kind = model.config.model_type
    if head is None or getattr(head, "weight", None) is None:
        raise UserError(KEY, kind, "has no single LM head", FIX)
    rows = inputs.weight.shape[0]
    known = {id(p) for end in (inputs, head) for p in end.parameters()}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        owner = model.get_submodule(name.rpartition(".")[0])
        table = isinstance(owner, torch.nn.Embedding) or not tensor.is_floating_point()
        if id(tensor) in known or "position" in name or tensor.dim() < 2:
            continue
        if table and tensor.shape[0] == rows:
            raise UserError(KEY, kind, f"{name} has a row per token", FIX)


def check_replaced(model: PreTrainedModel) -> None:
    """Raise `UserError` if the resized `model` differs in shape from what its configuration builds.

    It would be saved, and refused or damaged on loading.
    """
    with torch.device("meta"):
        fresh = type(model)(model.config)
    built = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
    found = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(built.keys() | found.keys()):
        if built.get(name) != found.get(name):
            shapes = [None if s is None else tuple(s) for s in (found.get(name), built.get(name))]
            rule = f"its vocabulary cannot be resized: {name} has {shapes[0]}, needs {shapes[1]}"
            raise UserError(KEY, model.config.model_type, rule, FIX)

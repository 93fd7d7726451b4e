"""Vocabulary transplant: replace the vocabulary of a model and keep the embeddings it can.

Embeddings are matched by string, never by index: tokens in both vocabularies (`anchors`) keep their
rows, all others are initialised (`initial`). Input embedding and LM head may use different
initialisations.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.errors import UserError
from hpc_llm.settings import TransplantSettings
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.rows import NewTokens, TrainingText, mean_of_pieces
from hpc_llm.vocabulary.sides import new_rows, new_side
from hpc_llm.vocabulary.tables import check_replaced, check_tables
from hpc_llm.vocabulary.token_ids import move_token_ids

__all__ = ["replace_rows", "transplant"]


def transplant(  # noqa: PLR0913 (the public form of the room)
    model: PreTrainedModel,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    settings: TransplantSettings,
    seed: int,
    text: TrainingText | None = None,
    *,
    old_ids: Sequence[int] | None = None,
) -> tuple[dict[str, Any], list[int]]:
    """Replace the vocabulary of `model`, that of `old`, by that of `new`.

    `text` is for the initialisations that learn from it.
    `old_ids` are the ids in `old` by new row, -1 for new tokens; None: tokens match by their text.

    Returns the entries of the record (counts, and a report for each side) and the ids that `old`
    did not have. Replaces the input embedding and, unless tied, the LM head (and its bias, always
    with the mean initialisation); moves the token ids in the model's and the generation
    configuration. Raises `UserError` for an unknown initialisation, and for two different ones on
    a tied model.
    """
    check_tables(model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if tied and settings.input != settings.output:
        raise UserError(
            "transplant.output",
            settings.output,
            "the LM head is tied to the input embedding, so both need the same initialisation",
            f"use transplant.output={settings.input}",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    tokens, counts = match_rows(old, new, settings, seed, rows, old_ids)
    tokens = replace(tokens, model=model)
    if text is not None:
        tokens = replace(tokens, vectors=text.vectors, documents=text.documents, state=text.state)
    sides = _replace_rows(model, tokens, tied)
    configs = {"config": model.config, "generation_config": model.generation_config}
    dropped = move_token_ids(configs, old, new, tokens.anchors)
    check_replaced(model)  # after the ids: an old padding id may be beyond the new rows
    return {**asdict(counts), "tied": tied, **sides, "dropped_token_ids": dropped}, tokens.ids


def _replace_rows(model: PreTrainedModel, tokens: NewTokens, tied: bool) -> dict[str, Any]:
    """Give input embedding and LM head their new rows; return the report of each side.

    A matrix is released as soon as it has been read: beside the result, at most one old matrix and
    what an initialisation needs are in memory.
    """
    settings = tokens.settings
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)  # (vocab_o,)
    new_bias = None if bias is None else new_rows(bias[:, None], tokens, mean_of_pieces)[:, 0]
    inputs, report = new_side(model.get_input_embeddings().weight, tokens, settings.input)
    sides: dict[str, Any] = {"input": report, "output": None}
    outputs = None
    _release(model.get_input_embeddings())
    if not tied:
        tokens = replace(tokens, inputs=inputs)
        outputs, sides["output"] = new_side(head.weight, tokens, settings.output)
    replace_rows(model, inputs, outputs, new_bias)
    return sides


def replace_rows(
    model: PreTrainedModel,
    inputs: torch.Tensor,
    outputs: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> None:
    """Give `model` the input embedding `inputs` and the LM head `outputs`, both (vocab_n, d).

    They become its parameters, without a copy. None for `outputs`: the head is tied to the input
    embedding. `bias` (vocab_n,) is that of the head, None without one.
    """
    head = model.get_output_embeddings()
    _release(model.get_input_embeddings())
    if outputs is None:
        head.weight = model.get_input_embeddings().weight
    else:
        _release(head)
        for config in (model.config, model.config.get_text_config()):
            # a folder may say tied and hold another head, which loading respects
            config.tie_word_embeddings = False
    model.resize_token_embeddings(len(inputs), mean_resizing=False)  # on the meta device
    _set(model.get_input_embeddings(), "weight", inputs)
    head = model.get_output_embeddings()
    if outputs is not None:
        _set(head, "weight", outputs)
    if bias is not None:
        _set(head, "bias", bias)
    model.tie_weights()


def _release(module: torch.nn.Module) -> None:
    """Free the weight of a module; its shape stays."""
    weight: torch.Tensor = module.weight
    empty = torch.empty_like(weight, device="meta")
    module.weight = torch.nn.Parameter(empty, weight.requires_grad)


def _set(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    """Set a parameter of a module; whether it is trainable stays."""
    setattr(module, name, torch.nn.Parameter(value, getattr(module, name).requires_grad))

"""Vocabulary transplant: replace the vocabulary of a model and keep the embeddings it can.

Embeddings are matched by string, never by index: tokens in both vocabularies (`anchors`) keep their
rows, all others are initialised (`initial`). Input embedding and LM head may use different
initialisations.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.errors import UserError
from hpc_llm.settings import TransplantSettings
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.initial import Initialisation, initialisation
from hpc_llm.vocabulary.rows import NewTokens, mean_of_pieces
from hpc_llm.vocabulary.tables import check_replaced, check_tables
from hpc_llm.vocabulary.token_ids import move_token_ids

__all__ = ["new_rows", "transplant"]


def new_rows(rows: torch.Tensor, tokens: NewTokens, initial: Initialisation) -> torch.Tensor:
    """Return the new rows (vocab_n, d) in the precision of the old `rows` (vocab_o, d).

    Anchors are copied; the rows of new tokens are computed in fp32 by `initial`.
    """
    old = rows.detach().float()
    result = torch.empty(tokens.size, old.shape[1], dtype=old.dtype, device=old.device)
    if tokens.anchors:
        new_ids, old_ids = torch.tensor(tokens.anchors).T
        result[new_ids] = old[old_ids]
    if tokens.ids:
        result[tokens.ids] = _checked(
            initial(old, tokens), (len(tokens.ids), old.shape[1]), initial
        )
    return result.to(rows.dtype)


def _checked(rows: torch.Tensor, shape: tuple[int, int], initial: Initialisation) -> torch.Tensor:
    """Return the new rows. Raises `UserError` for another `shape` (n, d), NaN and infinity."""
    name = str(getattr(initial, "__module__", initial)).rsplit(".", 1)[-1]
    if tuple(rows.shape) != shape:
        rule = f"returned rows of shape {tuple(rows.shape)}, must be {shape}"
        raise UserError("initialisation", name, rule)
    if not torch.isfinite(rows).all():
        rule = "returned NaN or infinite values"
        raise UserError("initialisation", name, rule, "check it, and the base model's embeddings")
    return rows


def transplant(
    model: PreTrainedModel,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    settings: TransplantSettings,
    seed: int,
    vectors: Callable[[int], Donor] | None = None,
) -> tuple[dict[str, Any], list[int]]:
    """Replace the vocabulary of `model`, that of `old`, by that of `new`.

    `vectors` returns a donor's vectors of the new tokens, for the initialisations that need them.

    Returns the entries of the record (including row counts) and the ids that `old` did not have.
    Replaces the input embedding and, unless tied, the LM head (and its bias, always with the mean
    initialisation); moves the token ids in the model's and the generation configuration. Raises
    `UserError` for an unknown initialisation, and for two different ones on a tied model.
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
    tokens, counts = match_rows(old, new, settings, seed, rows)
    tokens = replace(tokens, vectors=vectors)
    input_rows, output_rows = initialisation(settings.input), initialisation(settings.output)
    inputs = new_rows(model.get_input_embeddings().weight, tokens, input_rows)
    head = model.get_output_embeddings()
    for_head = replace(tokens, inputs=inputs, report={})
    outputs = None if tied else new_rows(head.weight, for_head, output_rows)
    bias = getattr(head, "bias", None)  # (vocab_o,)
    new_bias = None if bias is None else new_rows(bias[:, None], tokens, mean_of_pieces)[:, 0]
    if not tied:  # a folder may say tied and hold another head, which loading respects
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
    model.resize_token_embeddings(tokens.size, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(inputs)
        if outputs is not None:
            model.get_output_embeddings().weight.copy_(outputs)
        if new_bias is not None:
            model.get_output_embeddings().bias.copy_(new_bias)
    model.tie_weights()
    configs = {"config": model.config, "generation_config": model.generation_config}
    dropped = move_token_ids(configs, old, new, tokens.anchors)
    check_replaced(model)  # after the ids: an old padding id may be beyond the new rows
    chosen = {"tied": tied, "input": settings.input, "output": settings.output}
    fits = {"input": tokens.report, "output": for_head.report}
    fit = {f"{side}_fit": report for side, report in fits.items() if report}
    return {**asdict(counts), **chosen, **fit, "dropped_token_ids": dropped}, tokens.ids

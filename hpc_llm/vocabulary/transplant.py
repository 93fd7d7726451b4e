"""The vocabulary transplant: a model takes a new vocabulary and keeps what it can of the old rows.

Rows move by string, never by index. With E_o the old rows (vocab_o, d) and T a sparse matrix
(vocab_n, vocab_o) the new rows are E_n = T E_o: a row of T has one 1 for a token that the old
vocabulary has too (an anchor) or a special token of the same role, and 1/K at each of the K old
pieces of the new token's surface otherwise ("mean"). Input and output rows have their own T.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.errors import UserError
from hpc_llm.settings import TransplantSettings
from hpc_llm.vocabulary.surfaces import Surface, pieces_of, surfaces

__all__ = ["RowCounts", "RowSources", "row_sources", "transplant"]

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class RowCounts:
    """Where the rows of the new vocabulary come from."""

    rows: int
    """Rows of the new vocabulary."""
    special: int
    """Special tokens taken over by role or string."""
    copied: int
    """Tokens that both vocabularies have."""
    mean: int
    """Tokens set to the mean of their old pieces."""
    unknown: int
    """Tokens of which the old vocabulary knows nothing: the mean of all rows."""


@dataclass(frozen=True)
class RowSources:
    """What the rows of the new vocabulary are made of."""

    ids: list[list[int]]
    """For each new id the old ids whose mean it becomes; []: nothing is known of it."""
    new: list[int]
    """New ids that the old vocabulary did not have: neither special nor copied."""
    counts: RowCounts


def row_sources(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> RowSources:
    """Find for each row of the vocabulary of `new` what it is made of in that of `old`."""
    anchors: dict[Surface, int] = {}
    for index, surface in enumerate(surfaces(old)):
        if surface is not None:
            anchors.setdefault(surface, index)
    roles = _special_rows(old, new)
    sources: list[list[int]] = []
    unseen: list[int] = []
    counts = dict.fromkeys(("special", "copied", "mean", "unknown"), 0)
    for index, surface in enumerate(surfaces(new)):
        if index in roles:
            sources.append([roles[index]])
            counts["special"] += 1
        elif surface is not None and (namesake := _namesake(surface, anchors)) is not None:
            sources.append([namesake])
            counts["copied"] += 1
        else:
            sources.append(pieces_of(surface.text, old) if surface is not None else [])
            counts["mean" if sources[-1] else "unknown"] += 1
            unseen.append(index)
    return RowSources(sources, unseen, RowCounts(rows=len(sources), **counts))


def _namesake(surface: Surface, anchors: dict[Surface, int]) -> int | None:
    """Return the old token of the same text; a letter before its byte piece, and vice versa."""
    other = Surface(surface.text, not surface.lone_byte)
    return anchors.get(surface, anchors.get(other))


def _special_rows(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> dict[int, int]:
    """Map new special ids to old ones: by role first, by string for the rest."""
    old_vocabulary = old.get_vocab()
    rows = {
        new_id: old_vocabulary[token]
        for new_id, token in zip(new.all_special_ids, new.all_special_tokens, strict=True)
        if token in old_vocabulary
    }
    for role in ROLES:
        new_token, old_token = getattr(new, role), getattr(old, role)
        if new_token is not None and old_token is not None:
            rows[new.convert_tokens_to_ids(new_token)] = old.convert_tokens_to_ids(old_token)
    return rows


def new_rows(rows: torch.Tensor, sources: list[list[int]], recipe: str, seed: int) -> torch.Tensor:
    """Return the new rows (vocab_n, d) made of old `rows` (vocab_o, d), computed in fp32.

    `random` is the control: N(mu, diag sigma^2) of the old rows where there is no namesake.
    """
    old = rows.detach().float()
    indices = torch.tensor([i for i, source in enumerate(sources) for _ in source])
    columns = torch.tensor([j for source in sources for j in source])
    weights = torch.tensor([1.0 / len(source) for source in sources for _ in source])
    size = (len(sources), old.shape[0])
    matrix = torch.sparse_coo_tensor(
        torch.stack([indices, columns]), weights, size, check_invariants=True
    )
    result = torch.sparse.mm(matrix.coalesce(), old)  # (vocab_n, d)
    unknown = torch.tensor([not source for source in sources])
    result[unknown] = old.mean(0)
    if recipe == "random":
        drawn = torch.tensor([len(source) != 1 for source in sources])
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(sources), old.shape[1], generator=generator)
        result[drawn] = (old.mean(0) + noise * old.std(0))[drawn]
    return result.to(rows.dtype)


def transplant(
    model: PreTrainedModel,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    settings: TransplantSettings,
    seed: int,
) -> tuple[dict[str, Any], list[int]]:
    """Give `model` the vocabulary of `new` in place of that of `old`.

    Returns what the record tells, the row counts among it, and the ids that `old` did not have.
    Input rows and, where they are not tied to them, rows of the LM head are replaced (a bias of
    the head too); token ids in the model's and the generation configuration follow.
    """
    tied = bool(model.config.get_text_config().tie_word_embeddings)
    if tied and settings.input != settings.output:
        raise UserError(
            f"transplant.output={settings.output}: the model ties its LM head to the embeddings; "
            f"give transplant.output={settings.input} as for the input"
        )
    found = row_sources(old, new)
    sources = found.ids
    inputs = new_rows(model.get_input_embeddings().weight, sources, settings.input, seed)
    head = model.get_output_embeddings()
    outputs = None if tied else new_rows(head.weight, sources, settings.output, seed)
    bias = getattr(head, "bias", None)
    new_bias = None if bias is None else new_rows(bias[:, None], sources, "mean", seed)[:, 0]
    model.resize_token_embeddings(len(sources), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(inputs)
        if outputs is not None:
            model.get_output_embeddings().weight.copy_(outputs)
        if new_bias is not None:
            model.get_output_embeddings().bias.copy_(new_bias)
    model.tie_weights()
    _set_token_ids(model, new)
    chosen = {"tied": tied, "input": settings.input, "output": settings.output}
    return {**asdict(found.counts), **chosen}, found.new


def _set_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make the ids in `config` and `generation_config` agree with the tokenizer."""
    for config in (model.config, model.generation_config):
        for role in ("bos", "eos", "pad"):
            setattr(config, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id"))

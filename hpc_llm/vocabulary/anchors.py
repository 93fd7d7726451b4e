"""Anchors: tokens of the new vocabulary that keep their old embeddings, matched by string, not by
index.

Special tokens match by role (bos, eos, unk, pad), then by string; other tokens by surface.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from hpc_llm.settings import TransplantSettings
from hpc_llm.tokenizer.text import text_encoder
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.surfaces import Surface, pieces_of, surfaces

__all__ = ["RowCounts", "match_rows"]

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


@dataclass(frozen=True)
class RowCounts:
    """Sources of the embeddings of the new vocabulary."""

    rows: int
    """Rows of the new vocabulary."""
    special: int
    """Special tokens matched by role or string."""
    copied: int
    """Tokens in both vocabularies."""
    new: int
    """Tokens that the old vocabulary does not have."""
    unspelled: int
    """New tokens that cannot be spelled with old tokens."""
    without_row: int
    """Old tokens without an embedding: the tokenizer has more tokens than the model has rows."""


def match_rows(
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    settings: TransplantSettings,
    seed: int,
    vocab_o: int | None = None,
    old_ids: Sequence[int] | None = None,
) -> tuple[NewTokens, RowCounts]:
    """Match the vocabulary of `new` with that of `old`.

    Returns the new tokens (including the anchors) and the counts; `settings` and `seed` are for
    their initialisation. `vocab_o` is the number of old rows: old tokens with larger ids (a pad
    token that was added without resizing the model) have no embedding and match nothing. None: all
    have one. `old_ids` are the old ids by new row, -1 for new tokens; None: they are matched.
    """
    rows = max(old.get_vocab().values()) + 1 if vocab_o is None else vocab_o
    encode = text_encoder(old, rows=rows)
    found = surfaces(new)
    if old_ids is None:
        roles = _special_rows(old, new, rows)
        sources = _matched(found, _by_surface(old, rows)) | roles
        special = frozenset(roles)
    else:
        found = [*found, *[None] * (len(old_ids) - len(found))]
        sources = {i: source for i, source in enumerate(old_ids) if source >= 0}
        special = frozenset(new.all_special_ids) & sources.keys()
    ids = [i for i in range(len(found)) if i not in sources]
    texts = [surface and surface.text for surface in (found[i] for i in ids)]
    pieces = pieces_of(texts, old, encode)
    counts = RowCounts(
        len(found),
        len(special),
        len(sources) - len(special),
        new=len(ids),
        unspelled=sum(not spelling for spelling in pieces),
        without_row=sum(index >= rows for index in old.get_vocab().values()),
    )
    tokens = NewTokens(
        ids=ids,
        pieces=pieces,
        anchors=sorted(sources.items()),
        size=len(found),
        seed=seed,
        settings=settings,
        special=special,
        spaces=_spaces(old, rows),
        surfaces=[surface and surface.text for surface in found],
    )
    return tokens, counts


def _matched(found: Sequence[Surface | None], known: dict[Surface, int]) -> dict[int, int]:
    """Map the new ids of surfaces that the old vocabulary has to the old ids."""
    pairs = ((i, _namesake(surface, known)) for i, surface in enumerate(found) if surface)
    return {i: source for i, source in pairs if source is not None}


def _spaces(tokenizer: PreTrainedTokenizerBase, rows: int) -> frozenset[int]:
    """Return the ids below `rows` of tokens of nothing but spaces."""
    found = enumerate(surfaces(tokenizer)[:rows])
    return frozenset(i for i, surface in found if surface and not surface.text.strip(b" "))


def _by_surface(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[Surface, int]:
    """Map surfaces to ids below `rows`; the lowest id of equal surfaces."""
    known: dict[Surface, int] = {}
    for index, surface in enumerate(surfaces(tokenizer)[:rows]):
        if surface is not None:
            known.setdefault(surface, index)
    return known


def _namesake(surface: Surface, known: dict[Surface, int]) -> int | None:
    """Return the old token of equal text; a letter before its byte token, or vice versa."""
    other = Surface(surface.text, not surface.lone_byte)
    return known.get(surface, known.get(other))


def _special_rows(
    old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, rows: int
) -> dict[int, int]:
    """Map new special ids to old ones below `rows`: by role first, by string for the rest.

    Plain text that the old vocabulary has as a special token (a newline) is matched by string.
    """
    old_vocabulary = old.get_vocab()
    new_vocabulary = new.get_vocab()
    names = dict(zip(new.all_special_ids, new.all_special_tokens, strict=True))
    names |= {new_vocabulary[t]: t for t in old.all_special_tokens if t in new_vocabulary}
    found = {
        new_id: old_vocabulary[token] for new_id, token in names.items() if token in old_vocabulary
    }
    for role in ROLES:
        new_token, old_token = getattr(new, role), getattr(old, role)
        if new_token is not None and old_token is not None:
            found[new.convert_tokens_to_ids(new_token)] = old.convert_tokens_to_ids(old_token)
    return {new_id: old_id for new_id, old_id in found.items() if old_id < rows}

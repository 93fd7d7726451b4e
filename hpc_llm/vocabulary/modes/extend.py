"""transplant.mode=extend: new tokens are added to the BPE vocabulary of the base.

The base's BPE training is continued on the target text (`hpc_llm.vocabulary.bpe.continued`). All
old tokens keep their ids and rows, and text without new tokens is encoded as before. New tokens
first take the rows that fill up the base's embeddings to a round size.
"""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.vocabulary.modes import Base, Mode, Vocabulary
from hpc_llm.vocabulary.modes._bpe import (
    PIECES,
    BpeBase,
    check_scripts,
    open_bpe,
    planned_tokens,
    rounded,
)

if TYPE_CHECKING:
    from hpc_llm.vocabulary.bpe import Additions, BpeTables

__all__ = ["MODE", "extended"]


def extended(
    bpe: BpeBase, tables: "BpeTables", words: Counter[str]
) -> tuple["BpeTables", "Additions"]:
    """Return `tables` with new tokens for `words` behind the others, and these.

    Raises `UserError` for `extend.pieces` out of range.
    """
    settings = bpe.base.cfg.transplant.extend
    size, multiple = tables.size, settings.multiple
    tokens = rounded(size, settings.pieces, multiple) - size
    if tokens < 1:
        rule = f"is less than it takes from {size:,} tokens to a multiple of {multiple}"
        fix = f"use {multiple} or more, or a smaller transplant.extend.multiple"
        raise UserError(PIECES, settings.pieces, rule, fix)
    found = bpe.additions(tables, words, tokens)
    return tables.with_additions(found.tokens, found.merges), found


def _build(base: Base, folder: Path) -> Vocabulary:
    bpe = open_bpe(base)
    tables, found = extended(bpe, bpe.tables, bpe.words("target"))
    old_ids = list(range(max(tables.size, base.rows)))
    old_ids[bpe.tables.size : tables.size] = [-1] * len(found.tokens)
    return bpe.vocabulary(tables, old_ids, folder, added=len(found.tokens))


def _rows(cfg: RunConfig, old: int) -> int:
    settings = cfg.transplant.extend
    tokens = planned_tokens(cfg, old)
    return max(old, rounded(tokens, settings.pieces, settings.multiple))


MODE = Mode(build=_build, rows=_rows, counts=("extend",), check=check_scripts)

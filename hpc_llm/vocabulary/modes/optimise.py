"""transplant.mode=optimise: rare tokens of the base are removed, then its vocabulary is extended.

Removed are the rarest leaves of the merges (`hpc_llm.vocabulary.bpe.leaves`): text in which they do
not occur is encoded as before. The tokens that stay keep their rows, not their ids.
"""

from collections import Counter
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.vocabulary.modes import Base, Mode, Vocabulary
from hpc_llm.vocabulary.modes._bpe import (
    BpeBase,
    check_scripts,
    open_bpe,
    planned_tokens,
    rounded,
)
from hpc_llm.vocabulary.modes.extend import extended

__all__ = ["MODE"]


def _removed(bpe: BpeBase, words: Counter[str]) -> list[str]:
    """Return the tokens to remove; `words` are those of the target text.

    Raises `UserError` for `optimise.keep` out of range.
    """
    from hpc_llm.vocabulary.bpe import count_tokens, removable_leaves

    settings, tables = bpe.base.cfg.transplant.optimise, bpe.tables
    key, tokens, fixed = "transplant.optimise.keep", len(tables.vocab), len(tables.fixed)
    if settings.keep > tokens:
        rule = f"the base has {tokens:,} tokens"
        raise UserError(key, settings.keep, rule, "use fewer, or transplant=extend")
    if settings.keep < fixed:
        rule = f"special tokens, bytes and single characters are {fixed:,} tokens, which stay"
        raise UserError(key, settings.keep, rule, f"use {fixed} or more")
    counts = count_tokens(tables, words + bpe.words("source"))
    return removable_leaves(tables, counts, tokens - settings.keep, settings.min_count)


def _build(base: Base, folder: Path) -> Vocabulary:
    bpe = open_bpe(base)
    words = bpe.words("target")
    gone = _removed(bpe, words)
    small, old_ids = bpe.tables.without(gone).compacted()
    tables, found = extended(bpe, small, words)
    old_ids += [-1] * len(found.tokens)
    return bpe.vocabulary(tables, old_ids, folder, added=len(found.tokens), removed=len(gone))


def _rows(cfg: RunConfig, old: int) -> int:
    settings = cfg.transplant
    kept = min(settings.optimise.keep, planned_tokens(cfg, old))
    return rounded(kept, settings.extend.pieces, settings.extend.multiple)


MODE = Mode(build=_build, rows=_rows, counts=("extend", "optimise"), check=check_scripts)

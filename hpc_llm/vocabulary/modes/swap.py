"""transplant.mode=swap: the rarest tokens of the base give their places to new ones.

The size of the vocabulary stays, and so do ids and rows of all tokens that are kept. Tokens that
target and source text hardly use go first, only leaves of the merges
(`hpc_llm.vocabulary.bpe.leaves`); the new ones are those of `extend`.
"""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.settings.scripts import script_letter
from hpc_llm.vocabulary.modes import Base, Mode, Vocabulary
from hpc_llm.vocabulary.modes._bpe import PIECES, check_scripts, open_bpe

if TYPE_CHECKING:
    from hpc_llm.vocabulary.bpe import BpeTables

__all__ = ["MODE"]


def _protected(tables: "BpeTables", scripts: Collection[str]) -> list[str]:
    """Return the tokens with a letter of the `scripts`."""
    if not scripts:
        return []
    letter = script_letter(tuple(scripts))
    return [t for t in tables.vocab if letter.search(tables.surface(t).decode("utf-8", "ignore"))]


def _build(base: Base, folder: Path) -> Vocabulary:
    from hpc_llm.vocabulary.bpe import count_tokens, removable_leaves

    bpe, settings = open_bpe(base), base.cfg.transplant
    tables, pieces = bpe.tables, settings.extend.pieces
    words = bpe.words("target")
    counts = count_tokens(tables, words + bpe.words("source"))
    gone = removable_leaves(tables, counts, pieces, kept=_protected(tables, settings.swap.protect))
    if len(gone) < pieces:
        rule = f"only {len(gone):,} tokens of the base can be removed"
        fix = "use fewer, or a shorter list in transplant.swap.protect"
        raise UserError(PIECES, pieces, rule, fix)
    small = tables.without(gone)
    found = bpe.additions(small, words, pieces)
    # A token that was removed and found again has its old place and row
    back = set(gone).intersection(found.tokens)
    free = iter(sorted(tables.vocab[token] for token in gone if token not in back))
    places = [tables.vocab[t] if t in back else next(free) for t in found.tokens]
    new = small.with_additions(found.tokens, found.merges, places)
    old_ids = list(range(max(base.rows, tables.size)))
    for token, place in zip(found.tokens, places, strict=True):
        old_ids[place] = place if token in back else -1
    return bpe.vocabulary(new, old_ids, folder, swapped=pieces - len(back))


def _rows(cfg: RunConfig, old: int) -> int:
    return old


MODE = Mode(build=_build, rows=_rows, counts=("extend", "swap"), check=check_scripts)

"""What `extend`, `optimise` and `swap` share: the BPE vocabulary of the base, read and written."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.settings.scripts import require_scripts
from hpc_llm.vocabulary.modes import Base, Vocabulary

if TYPE_CHECKING:
    from hpc_llm.vocabulary.bpe import Additions, BpeTables

__all__ = ["PIECES", "BpeBase", "check_scripts", "open_bpe", "planned_tokens", "rounded"]

PIECES = "transplant.extend.pieces"


@dataclass(frozen=True, kw_only=True)
class BpeBase:
    """The BPE vocabulary of a base model."""

    base: Base
    parts: dict[str, Any]
    """The parts of its `tokenizer.json`."""
    tables: "BpeTables"

    def words(self, language: str) -> Counter[str]:
        """Return the counts of the words of a training text, target or source."""
        from hpc_llm.tokenizer.sample import draw
        from hpc_llm.vocabulary.bpe import count_words

        cfg = self.base.cfg
        most = cfg.transplant.extend.max_characters
        texts = draw(self.base.texts(language), most, cfg.text_seed)
        return count_words(texts, self.base.tokenizer.backend_tokenizer, self.tables)

    def additions(self, tables: "BpeTables", words: Counter[str], tokens: int) -> "Additions":
        """Return `tokens` new tokens of `tables`. Raises `UserError` if the text has fewer."""
        from hpc_llm.vocabulary.bpe import continued_merges

        settings = self.base.cfg.transplant.extend
        found = continued_merges(tables, words, tokens, settings.min_count, settings.scripts)
        if len(found.tokens) == tokens:
            return found
        scripts = ", ".join(settings.scripts)
        rule = (
            f"{tokens:,} new tokens are asked for, and only {len(found.tokens):,} in {scripts} "
            f"occur {settings.min_count:,} times in the target text"
        )
        fix = "use a smaller one, a lower transplant.extend.min_count, or more text"
        raise UserError(PIECES, settings.pieces, rule, fix)

    def vocabulary(
        self, tables: "BpeTables", old_ids: Sequence[int], folder: Path, **report: int
    ) -> Vocabulary:
        """Write the base's tokenizer with other `tables` into `folder`.

        `old_ids` are the base's ids by embedding row, -1 for new tokens; `report` is for the
        record.
        """
        from tokenizers import Tokenizer

        from hpc_llm.surgery.loading import model_type
        from hpc_llm.tokenizer.coder import tokenizer_coder
        from hpc_llm.tokenizer.export import save_like
        from hpc_llm.tokenizer.files import vocabulary_file

        base = self.base
        backend = Tokenizer.from_str(json.dumps(tables.write(self.parts)))
        kind = model_type(base.path, base.cfg.model)
        new = save_like(backend, base.tokenizer, folder, kind)
        special = base.cfg.tokenizer.special_strings
        coder = tokenizer_coder(new, vocabulary_file(folder), len(old_ids), special)
        kept = [old if old < base.rows else -1 for old in old_ids]
        return Vocabulary(tokenizer=new, coder=coder, old_ids=kept, report=report)


def open_bpe(base: Base) -> BpeBase:
    """Return the BPE vocabulary of `base`.

    Raises `UserError` if it is no BPE, or if its tokenizer has no fast form.
    """
    from hpc_llm.vocabulary.bpe import read_tables

    mode = base.cfg.transplant.mode
    backend = getattr(base.tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        rule = f"the tokenizer of {base.path} has no fast form (tokenizer.json)"
        raise UserError("transplant.mode", mode, rule, "use transplant=replace or keep")
    parts = json.loads(backend.to_str())
    return BpeBase(base=base, parts=parts, tables=read_tables(parts, mode))


def planned_tokens(cfg: RunConfig, rows: int) -> int:
    """Return the tokens of the base for `plan`: as in its `tokenizer.json`, else its `rows`."""
    from hpc_llm.tokenizer.own import json_size

    path = cfg.model.path
    file = None if path is None else Path(path).expanduser() / "tokenizer.json"
    if path is None or file is None or not file.is_file():
        return rows
    return json_size(file, "model.path", path)


def rounded(size: int, pieces: int, multiple: int) -> int:
    """Return the largest multiple of `multiple` that is at most `size + pieces`."""
    return (size + pieces) // multiple * multiple


def check_scripts(cfg: RunConfig) -> None:
    """Raise `UserError` for scripts that Unicode does not have."""
    settings = cfg.transplant
    require_scripts("transplant.extend.scripts", settings.extend.scripts)
    if settings.swap.protect:
        require_scripts("transplant.swap.protect", settings.swap.protect)

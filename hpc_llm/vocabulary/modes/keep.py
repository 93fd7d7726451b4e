"""transplant.mode=keep: the base model's own tokenizer, no transplant.

The usual recipe of continued pretraining, and the control for every other mode. The model goes into
training bit by bit as it is, and the tokenizer's files are copied unchanged.
"""

from pathlib import Path

from hpc_llm.settings import RunConfig
from hpc_llm.vocabulary.modes import Base, Mode, Vocabulary

__all__ = ["MODE"]


def _build(base: Base, folder: Path) -> Vocabulary:
    """Copy the tokenizer's files, and the `config.json` by which transformers finds its class."""
    from hpc_llm.surgery.hub import cached_folder
    from hpc_llm.surgery.loading import load_tokenizer
    from hpc_llm.tokenizer.coder import tokenizer_coder
    from hpc_llm.tokenizer.files import copy_tokenizer, vocabulary_file

    settings = base.cfg.model
    local = Path(base.path).expanduser()
    source = local if local.is_dir() else cached_folder(str(base.path), settings.revision)
    assert source is not None  # the base's tokenizer was loaded
    copy_tokenizer(source, folder, "config.json", *["*.py"] * settings.trust_remote_code)
    tokenizer = load_tokenizer(folder, settings)
    special = base.cfg.tokenizer.special_strings
    coder = tokenizer_coder(tokenizer, vocabulary_file(folder), base.rows, special)
    return Vocabulary(tokenizer=tokenizer, coder=coder, old_ids=range(base.rows))


def _rows(cfg: RunConfig, old: int) -> int:
    return old


MODE = Mode(build=_build, rows=_rows, changes=False)

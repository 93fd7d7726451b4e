"""transplant.mode=replace: a new vocabulary is trained on the training text.

Unigram or BPE with lossless settings (`hpc_llm.tokenizer.unigram`); special tokens are those of the
base. Or the vocabulary is that of `tokenizer.path`, with its own special tokens. Tokens that both
vocabularies have keep their rows.
"""

from pathlib import Path

from hpc_llm.settings import RunConfig
from hpc_llm.vocabulary.modes import Base, Mode, Vocabulary

__all__ = ["MODE"]


def _build(base: Base, folder: Path) -> Vocabulary:
    """Train the vocabulary and export it for transformers, or take that of the user."""
    if base.cfg.tokenizer.path is not None:
        return _own(base, folder, base.cfg.tokenizer.path)
    from hpc_llm.surgery.loading import model_type
    from hpc_llm.tokenizer.coder import sentencepiece_coder
    from hpc_llm.tokenizer.export import export_fast
    from hpc_llm.tokenizer.specials import special_tokens_of
    from hpc_llm.tokenizer.unigram import train_vocabulary

    cfg, old = base.cfg, base.tokenizer
    specials = special_tokens_of(old)
    target, source = base.texts("target"), base.texts("source")
    model_file = train_vocabulary(target, source, cfg.tokenizer, specials, cfg.text_seed, folder)
    kind = model_type(base.path, cfg.model)
    new = export_fast(model_file, old, specials, old.model_max_length, folder, kind)
    tokens = new if cfg.tokenizer.special_strings == "tokens" else None
    coder = sentencepiece_coder(model_file, cfg.tokenizer.threads, tokens)
    return Vocabulary(tokenizer=new, coder=coder)


def _own(base: Base, folder: Path, path: str) -> Vocabulary:
    """Write the tokenizer at `path` as transformers saves it."""
    from hpc_llm.surgery.loading import model_type
    from hpc_llm.tokenizer.autoload import keep_class
    from hpc_llm.tokenizer.coder import tokenizer_coder
    from hpc_llm.tokenizer.files import vocabulary_file
    from hpc_llm.tokenizer.own import load_own, require_lossless

    tokenizer, special = load_own(path), base.cfg.tokenizer.special_strings
    tokenizer.save_pretrained(folder)
    keep_class(folder, model_type(base.path, base.cfg.model))
    rows = max(tokenizer.get_vocab().values()) + 1
    coder = tokenizer_coder(tokenizer, vocabulary_file(folder), rows, special)
    require_lossless(coder.encode, tokenizer.decode, base.texts("target"), path)
    return Vocabulary(tokenizer=tokenizer, coder=coder)


def _rows(cfg: RunConfig, old: int) -> int:
    from hpc_llm.tokenizer.own import own_size

    own = cfg.tokenizer.path
    return cfg.tokenizer.vocab_size if own is None else own_size(own)


MODE = Mode(build=_build, rows=_rows, trains_vocabulary=True)

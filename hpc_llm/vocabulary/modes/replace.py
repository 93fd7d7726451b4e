"""transplant.mode=replace: a new vocabulary is trained on the training text.

Unigram or BPE with lossless settings (`hpc_llm.tokenizer.unigram`); special tokens are those of the
base. Tokens that both vocabularies have keep their rows.
"""

from pathlib import Path

from hpc_llm.settings import RunConfig
from hpc_llm.vocabulary.modes import Base, Mode, Vocabulary

__all__ = ["MODE"]


def _build(base: Base, folder: Path) -> Vocabulary:
    """Train the vocabulary and export it for transformers."""
    from hpc_llm.surgery.loading import model_type
    from hpc_llm.tokenizer.coder import sentencepiece_coder
    from hpc_llm.tokenizer.export import export_fast
    from hpc_llm.tokenizer.specials import special_tokens_of
    from hpc_llm.tokenizer.unigram import train_vocabulary

    cfg, old = base.cfg, base.tokenizer
    specials = special_tokens_of(old)
    target, source = base.texts("target"), base.texts("source")
    model_file = train_vocabulary(target, source, cfg.tokenizer, specials, cfg.seed, folder)
    kind = model_type(base.path, cfg.model)
    new = export_fast(model_file, old, specials, old.model_max_length, folder, kind)
    tokens = new if cfg.tokenizer.special_strings == "tokens" else None
    coder = sentencepiece_coder(model_file, cfg.tokenizer.threads, tokens)
    return Vocabulary(tokenizer=new, coder=coder)


def _rows(cfg: RunConfig, old: int) -> int:
    return cfg.tokenizer.vocab_size


MODE = Mode(build=_build, rows=_rows, trains_vocabulary=True)

"""Settings of the new vocabulary (`conf/tokenizer/`)."""

from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import (
    check_fields,
    count,
    require_choice,
    require_fraction,
    require_positive,
)

__all__ = ["MODEL_TYPES", "SMALLEST_VOCABULARY", "TokenizerSettings"]

MODEL_TYPES = ("unigram", "bpe")
SMALLEST_VOCABULARY = 384  # 256 byte tokens, the special tokens and an alphabet


@dataclass(kw_only=True)
class TokenizerSettings:
    """A new sentencepiece vocabulary; settings required for lossless text are fixed."""

    path: str | None
    """Folder of a tokenizer of your own, which replaces the old one; null: a new one is trained.
    It must decode every text exactly and have a token that ends a text."""
    model_type: str
    """unigram (Kudo 2018) or bpe, for comparison."""
    vocab_size: int
    """Number of tokens, including special tokens and byte tokens."""
    max_piece_characters: int = count(1024)
    """Maximum characters of a token, its leading space included."""
    source_share: float
    """Share of source-language characters in the training text, so that it stays readable."""
    max_characters: int
    """Maximum characters of training text; more is subsampled (memory grows with it)."""
    threads: int
    """Threads of the trainer; the vocabulary does not depend on it."""
    special_strings: str
    """Special tokens' strings in texts (`</s>` in HTML): text, letters like any other text; or
    tokens, the special tokens. For all text that is trained, scored or sampled, old and new
    vocabulary alike."""
    compare: list[str] = field(default_factory=list)
    """Further types (bpe) of vocabulary, trained on the same text only to be measured beside."""
    lexicon: str | None = None
    """File of words and their morphemes (`слова<TAB>слов/а`), to score token boundaries by F1."""
    parity: dict[str, str] = field(default_factory=dict)
    """Files of equal content by language, the reference first: {en: FILE, ru: FILE}. The tokens
    that each language needs for the same content are compared."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "tokenizer")
        require_choice("tokenizer.model_type", self.model_type, MODEL_TYPES)
        for kind in self.compare:
            require_choice("tokenizer.compare", kind, MODEL_TYPES)
        require_choice("tokenizer.special_strings", self.special_strings, ("text", "tokens"))
        require_positive("tokenizer.max_characters", self.max_characters)
        require_positive("tokenizer.threads", self.threads)
        require_fraction("tokenizer.source_share", self.source_share)
        if self.vocab_size < SMALLEST_VOCABULARY:
            rule = f"must be at least {SMALLEST_VOCABULARY} (256 byte tokens and the alphabet)"
            raise UserError("tokenizer.vocab_size", self.vocab_size, rule, "use a larger one")
        if len(self.parity) == 1:
            rule = "needs two languages or more, the reference first"
            raise UserError("tokenizer.parity", self.parity, rule, "write {en: FILE, ru: FILE}")

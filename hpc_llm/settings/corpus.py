"""Settings of the corpora (`conf/corpus/`)."""

from dataclasses import dataclass

from hpc_llm.settings.checks import require_positive

__all__ = ["CorpusSettings"]


@dataclass(kw_only=True)
class CorpusSettings:
    """Corpora of the new (target) language and of the model's own (source) language.

    Each entry of `target` and `source` is a file (.jsonl or .txt, also with .gz or .zst, .parquet),
    a glob pattern, `sample:en` / `sample:ru` (the corpus shipped with the package),
    `hub:OWNER/NAME` or `hub:OWNER/NAME:CONFIG` (read by the `datasets` library).
    """

    target: list[str]
    """Text of the new language."""
    source: list[str]
    """Text of the model's own language, to measure forgetting. May be empty."""
    text_field: str
    """Column or JSON key of the text."""
    hub_split: str
    """Split of a hub data set."""
    min_characters: int
    """Shorter documents are dropped after cleaning."""
    max_documents: int | None
    """Maximum number of documents read per language; null: all."""
    test_documents: int
    """Held-out documents on which bits per byte are reported."""
    tune_documents: int
    """Held-out documents, disjoint from these, on which the merging factor is chosen."""
    max_heldout_share: float
    """Held-out documents never exceed this share of the corpus."""

    def __post_init__(self) -> None:
        """Check the values."""
        require_positive("corpus.min_characters", self.min_characters)
        require_positive("corpus.test_documents", self.test_documents)
        require_positive("corpus.tune_documents", self.tune_documents)
        require_positive("corpus.max_heldout_share", self.max_heldout_share)
        if self.max_documents is not None:
            require_positive("corpus.max_documents", self.max_documents)

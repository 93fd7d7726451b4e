"""Settings of the corpora (`conf/corpus/`)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import (
    check_fields,
    count,
    fraction,
    positive,
    require_choice,
    require_name,
    require_positive,
)
from hpc_llm.settings.cleaning import C4Settings, GopherSettings, LanguageSettings, MinhashSettings
from hpc_llm.settings.sources import SourceSettings, check_sources, source_shares

__all__ = ["LANGUAGES", "CorpusSettings"]

LANGUAGES = ("target", "source")
"""Texts with held-out documents; the first is of the language that the model is adapted to."""


@dataclass(kw_only=True)
class CorpusSettings:
    """Corpora of the new (target) language and of the model's own (source) language.

    Each entry of `target`, `source` and `texts` is a file (.jsonl, .txt, .json, .csv, .tsv, also
    with .gz or .zst; .parquet, .arrow; .idx with .bin), a folder of such files, a glob pattern,
    `sample:en` or `sample:ru` (the corpus shipped with the package), `hub:OWNER/NAME` or
    `hub:OWNER/NAME:CONFIG` (read by the `datasets` library).
    """

    target: list[str]
    """Text of the new language. It and `source` are not set where `sources` are."""
    source: list[str]
    """Text of the model's own language, to measure forgetting. May be empty."""
    texts: dict[str, list[str]]
    """Further training texts by name, for the shares of `stages.NAME.text`. Nothing is held out of
    them; documents held out from target or source are dropped from them."""
    text_field: str
    """Column or JSON key of the text."""
    text_fields: dict[str, str]
    """The same for one text (target, source or a name of `texts`), or for one of its entries."""
    hub_split: str
    """Split of a hub data set."""
    min_characters: int
    """Shorter documents are dropped after cleaning."""
    max_documents: int | None
    """Maximum number of documents read per text; null: all."""
    test_documents: int
    """Held-out documents on which bits per byte are reported."""
    tune_documents: int
    """Held-out documents, disjoint from these, on which the merging factor is chosen."""
    max_heldout_share: float = fraction()
    """Held-out documents never exceed this share of the corpus."""
    seed: int | None = count(2**32 - 1, 0, default=None)
    """Seed of the choice of held-out documents and of the text that the tokenizer is trained on;
    null: the run's seed. Runs with the same value and different seeds share both stages, and are
    evaluated on the same documents."""
    ids_tokenizer: str | None = None
    """Folder of the tokenizer that decodes token files of Megatron's format (.idx beside .bin),
    such as that of the base model; null: there are none."""
    sources: dict[str, SourceSettings] = field(default_factory=dict)
    """Sources of text by name, in place of `target` and `source`: each with its language, its share
    of the tokens and held-out documents of its own. {}: none."""
    source_languages: list[str] = field(default_factory=list)
    """Languages of `sources` that the model knows already: source text. All others are languages
    that it is adapted to: target text."""
    temperature: float = positive(1e3, default=1.0)
    """T of the mixture of `sources` without a share: a language with n tokens gets a part
    proportional to n^(1/T). 1: by size; above 1: more of small languages."""
    clean: str = "none"
    """Quality rules, a file in `hpc_llm/corpus/rules/`: none, c4, gopher."""
    cleaned: list[str] = field(default_factory=lambda: ["target"])
    """Texts to which `clean` and `language` apply: target, source (with `sources`: all of that
    side), or names of `sources` and `texts`."""
    language: LanguageSettings = field(default_factory=LanguageSettings)
    c4: C4Settings = field(default_factory=C4Settings)
    gopher: GopherSettings = field(default_factory=GopherSettings)
    deduplicate: str = "exact"
    """exact: equal documents are dropped after cleaning; minhash: similar ones, too."""
    minhash: MinhashSettings = field(default_factory=MinhashSettings)
    decontaminate: list[str] = field(default_factory=list)
    """Files of evaluations, as entries of `target`: training documents that share a run of 13 words
    with a text of them are dropped."""

    def __post_init__(self) -> None:
        """Check the values."""
        check_fields(self, "corpus")
        require_positive("corpus.min_characters", self.min_characters)
        require_positive("corpus.test_documents", self.test_documents)
        require_positive("corpus.tune_documents", self.tune_documents)
        require_positive("corpus.max_heldout_share", self.max_heldout_share)
        if self.max_documents is not None:
            require_positive("corpus.max_documents", self.max_documents)
        self._check_fields()
        self._check_sources()
        self.gopher.check()
        require_choice("corpus.deduplicate", self.deduplicate, ("exact", "minhash"))
        for name in self.cleaned:
            known = [*LANGUAGES, *self.sources, *self.texts]
            if name not in known:
                fix = f"choose from {', '.join(known)}"
                raise UserError("corpus.cleaned", name, "is no text", fix)
            if name == "source" and not self.texts_in(name):
                fix = "set corpus.source, or remove it from the list"
                raise UserError("corpus.cleaned", name, "the run has no source text", fix)
        if not self.cleaned and (self.clean != "none" or self.language.keep):
            rule = "the rules of corpus.clean and corpus.language would apply to no text"
            raise UserError("corpus.cleaned", "[]", rule, "use [target]")
        for name, entries in self.texts.items():
            require_name(f"corpus.texts.{name}", name, (*LANGUAGES, *self.sources))
            if not entries:
                raise UserError(f"corpus.texts.{name}", "[]", "has no files", "give one or more")

    def _check_sources(self) -> None:
        for name in self.sources:
            require_name(f"corpus.sources.{name}", name, LANGUAGES)
        for name in LANGUAGES if self.sources else ():
            if entries := getattr(self, name):
                fix = f"make it one of the sources, or set corpus.{name}=[]"
                raise UserError(f"corpus.{name}", entries, "corpus.sources is set, too", fix)
        check_sources(self.sources, self.source_languages, self.temperature)

    def _check_fields(self) -> None:
        entries = [entry for name in self.names for entry in self.entries(name)[1]]
        known = [*LANGUAGES, *self.sources, *self.texts, *entries]
        for name, column in self.text_fields.items():
            if name not in known:
                fix = f"use one of {', '.join(known)}"
                raise UserError("corpus.text_fields", name, "is neither a text nor an entry", fix)
            if not column:
                raise UserError(f"corpus.text_fields.{name}", column, "names no field", "name one")

    def field_of(self, name: str, entry: str) -> str:
        """Return the field with the text in an entry of the text `name`."""
        fields = self.text_fields
        return fields.get(entry) or fields.get(name) or self.text_field

    @property
    def names(self) -> list[str]:
        """Names of the texts that have entries: those with held-out documents, then the others."""
        return [*self.evaluated, *self.texts]

    @property
    def evaluated(self) -> list[str]:
        """Names of the texts with held-out documents: the sources, or target and source."""
        return list(self.sources) or [name for name in LANGUAGES if getattr(self, name)]

    def texts_in(self, language: str) -> list[str]:
        """Return the texts with held-out documents that make up `target` or `source`."""
        if not self.sources:
            return [language] if language in self.evaluated else []
        known = language != LANGUAGES[0]
        return [
            name
            for name, source in self.sources.items()
            if (source.language in self.source_languages) == known
        ]

    @property
    def cleaned_texts(self) -> set[str]:
        """Names of the texts to which the rules apply."""
        sides = (text for side in LANGUAGES if side in self.cleaned for text in self.texts_in(side))
        return {*self.cleaned, *sides}

    def shares(self, size: Callable[[str], int]) -> dict[str, float]:
        """Return the share of the tokens of each source; `size` returns the size of a source."""
        sized = (name for name, source in self.sources.items() if source.share is None)
        return source_shares(self.sources, self.temperature, {name: size(name) for name in sized})

    def entries(self, name: str) -> tuple[str, list[str]]:
        """Return the setting that holds the entries of a text, and the entries."""
        if name in LANGUAGES:
            return f"corpus.{name}", getattr(self, name)
        if name in self.sources:
            return f"corpus.sources.{name}.files", self.sources[name].files
        return f"corpus.texts.{name}", self.texts[name]

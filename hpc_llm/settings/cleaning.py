"""Settings of the rules that drop documents: quality, language and near-duplicates."""

from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import count, number

__all__ = ["C4Settings", "GopherSettings", "LanguageSettings", "MinhashSettings"]


@dataclass(kw_only=True)
class C4Settings:
    """`clean=c4`: the rules of C4 (Raffel et al. 2020, section 2.2) on lines and pages."""

    terminal_marks: str | None = ".!?…:\"'»”’)"
    """Lines that end in none of these characters are removed; null: none. C4 has `.!?"'`; a colon
    ends the line before direct speech."""
    ellipsis_lines: bool = True
    """Keep lines that end in `...`; C4 removes them."""
    min_words_in_line: int = count(10**6, 0, default=3)
    """Lines of fewer words, separated by white space, are removed."""
    min_sentences: int = count(10**6, 0, default=5)
    """Pages of fewer sentences in the remaining lines are dropped."""
    longest_word: int = count(10**9, 0, default=1000)
    """Lines with a word of more characters are removed; 0: none."""
    lorem_ipsum: bool = True
    """Drop pages with the filler text `lorem ipsum`."""
    braces: bool = True
    """Drop pages with a `{`: program code."""
    javascript: bool = True
    """Remove lines that mention JavaScript."""
    policies: bool = True
    """Remove lines with a phrase of privacy and cookie notices, in English and Russian."""
    citations: bool = True
    """Remove references such as [1], [edit] and [citation needed] from lines."""
    html_lines: int = count(10**6, 0, default=3)
    """Drop pages with so many lines of HTML (`<div`, `</`, `&nbsp;`); 0: none. Not in C4."""
    bad_words: str | None = None
    """File with one word or phrase a line: pages with one of them are dropped."""
    bad_words_per_1000: float = number(0, 1000, default=0.0)
    """Number of them in 1,000 words that is still allowed; C4 allows none."""
    min_share: float = number(0, 1, default=0.0)
    """Drop pages of which a smaller share of the characters remains. Not in C4."""


@dataclass(kw_only=True)
class GopherSettings:
    """`clean=gopher`: the quality rules of Gopher (Rae et al. 2021, section A.1.1) on documents."""

    words: list[int] = field(default_factory=lambda: [50, 100_000])
    """Fewest and most words of a document."""
    mean_word: list[float] = field(default_factory=lambda: [3.0, 10.0])
    """Bounds of the mean length of a word in characters."""
    symbol_ratio: float = number(0, 1000, default=0.1)
    """Largest number of `#`, and of ellipses, for each word."""
    bullet_lines: float = number(0, 1, default=0.9)
    """Largest share of lines that begin with a bullet or a hyphen."""
    ellipsis_lines: float = number(0, 1, default=0.3)
    """Largest share of lines that end with an ellipsis."""
    letter_words: float = number(0, 1, default=0.8)
    """Smallest share of words with a letter."""
    stop_words: int = count(1000, 0, default=2)
    """Fewest different stop words of `corpus.language.keep`; 0: not checked."""
    stop_words_file: str | None = None
    """File with one stop word a line, for languages without a list; null: the package's lists."""

    def check(self) -> None:
        """Raise `UserError` for bounds that are not a lower and an upper one."""
        for name in ("words", "mean_word"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                rule = "must be two numbers, the lower bound first"
                raise UserError(f"corpus.gopher.{name}", bounds, rule, "give two numbers: [3,10]")


@dataclass(kw_only=True)
class LanguageSettings:
    """The language of the cleaned texts, judged by the script of its letters; no model is used."""

    keep: list[str] = field(default_factory=list)
    """Languages by their code (ISO 639-1), as [ru]; []: no document is dropped."""
    scripts: list[str] = field(default_factory=list)
    """Scripts by their Unicode name, as [Cyrillic]; []: those of `keep`."""
    script_share: float = number(0, 1, default=0.6)
    """Documents with a smaller share of letters in these scripts are dropped."""


@dataclass(kw_only=True)
class MinhashSettings:
    """`deduplicate=minhash`: similarity of documents by MinHash (Broder 1997)."""

    ngram: int = count(1000, default=5)
    """Words of a run; documents are compared by the sets of their runs."""
    buckets: int = count(200, default=14)
    """Groups of hashes: documents that agree in one of them are compared."""
    rows: int = count(50, default=8)
    """Hashes of a group. Documents of similarity s are compared with probability
    1 - (1 - s^rows)^buckets: 0.92 for 0.8."""
    verify: float = number(0, 1, default=0.7)
    """Least share of equal hashes at which the shorter document is dropped."""

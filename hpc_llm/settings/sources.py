"""Settings of the sources of a corpus (`corpus.sources.NAME`), and their shares of the tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpc_llm.errors import UserError
from hpc_llm.settings.checks import positive

__all__ = ["SourceSettings", "check_sources", "source_shares"]


@dataclass(kw_only=True)
class SourceSettings:
    """One source of text: files in one language, and its part in the mixture."""

    files: list[str] = field(default_factory=list)
    """Entries as in `corpus.target`: files, folders, patterns, sample: and hub: data sets."""
    language: str | None = None
    """Its language, any name: ru, kk, en, code, en-ru for parallel text."""
    share: float | None = positive(1e6, default=None)
    """Share of the tokens. If every source has one, they are divided by their sum, so percentages
    will do; else they are fractions whose sum is below 1, and the sources without share divide the
    rest by their size."""
    repeat: float | None = positive(1e6, default=None)
    """For a source without share: factor on its size, so that it is read `repeat` times while one
    of 1 is read once. null: 1."""


def check_sources(
    sources: Mapping[str, SourceSettings], known: list[str], temperature: float
) -> None:
    """Raise `UserError` for a mixture that is incomplete or contradicts itself.

    `known` are `corpus.source_languages`.
    """
    for name, source in sources.items():
        key = f"corpus.sources.{name}"
        if not source.files:
            raise UserError(f"{key}.files", "[]", "has no files", "give one or more")
        if source.language is None:
            fix = f"set {key}.language, for example to ru"
            raise UserError(f"{key}.language", "null", "the source has no language", fix)
        if source.share is not None and source.repeat is not None:
            rule = f"{key}.share={source.share:g} fixes its part already"
            raise UserError(f"{key}.repeat", source.repeat, rule, "set only one of them")
    languages = list(dict.fromkeys(source.language for source in sources.values()))
    for language in known:
        if language not in languages:
            fix = f"use one of {', '.join(map(str, languages))}" if sources else "set it"
            rule = "no source of corpus.sources has this language"
            raise UserError("corpus.source_languages", language, rule, fix)
    if sources and set(languages) <= set(known):
        rule = "leaves no language that the model is adapted to"
        raise UserError("corpus.source_languages", known, rule, "remove one of them")
    _check_shares(sources, temperature)


def _check_shares(sources: Mapping[str, SourceSettings], temperature: float) -> None:
    shares = [source.share for source in sources.values() if source.share is not None]
    if len(shares) == len(sources):
        if temperature != 1:
            rule = "has an effect on sources without share only, of which there are none"
            raise UserError("corpus.temperature", temperature, rule, "remove it")
    elif sum(shares) >= 1:
        name = next(name for name, source in sources.items() if source.share is None)
        rule = f"leave nothing for {name}, which has no share"
        raise UserError("corpus.sources", f"shares of {sum(shares):g} in all", rule, "reduce them")


def source_shares(
    sources: Mapping[str, SourceSettings], temperature: float, sizes: Mapping[str, int]
) -> dict[str, float]:
    """Return the share of the tokens of each source, in their order; they sum to 1.

    `sizes` are tokens (or bytes) by source, of those without a share at least. A language l whose
    sources without share have n_l = sum repeat * size gets a part of what the shares leave
    proportional to n_l^(1/T), T the temperature (Devlin et al. 2018; Conneau et al. 2020, arXiv
    1911.02116, section 3.1, with alpha = 1/T); within a language, sources are proportional to
    repeat * size.
    """
    fixed = {name: own.share for name, own in sources.items() if own.share is not None}
    amounts = {
        name: (own.repeat or 1.0) * sizes[name]
        for name, own in sources.items()
        if name not in fixed
    }
    languages: dict[str | None, float] = {}
    for name, amount in amounts.items():
        language = sources[name].language
        languages[language] = languages.get(language, 0.0) + amount
    largest = max(languages.values(), default=1.0)
    weights = {lang: (n / largest) ** (1 / temperature) for lang, n in languages.items()}
    whole = 1.0 if amounts else sum(fixed.values())
    rest = 1.0 - sum(fixed.values())

    def share(name: str) -> float:
        if name in fixed:
            return fixed[name] / whole
        language = sources[name].language
        of_language = weights[language] / sum(weights.values())
        return rest * of_language * amounts[name] / languages[language]

    return {name: share(name) for name in sources}

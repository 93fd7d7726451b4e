"""Scripts and stop words of languages, by ISO 639-1 code."""

from dataclasses import dataclass

from hpc_llm.errors import UserError
from hpc_llm.settings.cleaning import LanguageSettings

__all__ = ["LANGUAGES", "Language", "known_languages", "scripts_of"]


@dataclass(frozen=True)
class Language:
    """A language as the cleaning rules see it."""

    scripts: tuple[str, ...]
    """Unicode names of its scripts."""
    stop_words: frozenset[str] = frozenset()
    """Frequent function words, in lower case; empty: no list."""


def _language(scripts: str, stop_words: str = "") -> Language:
    return Language(tuple(scripts.split()), frozenset(stop_words.split()))


CYRILLIC, LATIN = "Cyrillic", "Latin"
LANGUAGES = {
    "ar": _language("Arabic"),
    "be": _language(CYRILLIC, "і у не на што з ён як а але гэта да па яго за было"),
    "bg": _language(CYRILLIC, "и в не на че с той като а но това до по за от се да е"),
    "de": _language(LATIN, "der die das und in zu den von mit nicht ist ein auf es sich"),
    "el": _language("Greek"),
    "en": _language(LATIN, "the be to of and that have with"),  # Gopher's eight
    "es": _language(LATIN, "de la que el en y a los se no un por con una su para es"),
    "fr": _language(LATIN, "de la le et les des en un une du que est pour dans qui ne pas"),
    "he": _language("Hebrew"),
    "hi": _language("Devanagari"),
    "hy": _language("Armenian"),
    "it": _language(LATIN, "di e il la che in un a per non una sono con si da le del"),
    "ja": _language("Han Hiragana Katakana"),
    "ka": _language("Georgian"),
    "kk": _language(CYRILLIC),
    "ko": _language("Hangul"),
    "pl": _language(LATIN, "i w na z nie się do to że jest o jak a po co za od"),
    "pt": _language(LATIN, "de a o que e do da em um para não com uma os no se na"),
    "ru": _language(CYRILLIC, "и в не на что с он как а но это к по его из за у от то же"),
    "th": _language("Thai"),
    "tr": _language(LATIN),
    "uk": _language(CYRILLIC, "і в не на що з він як а але це до по його за у від та"),
    "zh": _language("Han"),
}


def known_languages(settings: LanguageSettings) -> list[Language]:
    """Return the languages of `corpus.language.keep`. Raises `UserError` for an unknown one."""
    for code in settings.keep:
        if code not in LANGUAGES:
            fix = f"choose from {', '.join(LANGUAGES)}, or set corpus.language.scripts=[Cyrillic]"
            raise UserError("corpus.language.keep", code, "unknown language", fix)
    return [LANGUAGES[code] for code in settings.keep]


def scripts_of(settings: LanguageSettings) -> list[str]:
    """Return the Unicode names of the scripts to keep; []: any script is kept."""
    found = [name for language in known_languages(settings) for name in language.scripts]
    return list(settings.scripts) or list(dict.fromkeys(found))

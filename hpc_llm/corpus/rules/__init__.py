"""Quality rules, one file for each set of rules: `corpus.clean=NAME` is `rules/NAME.py`.

Such a file defines `build(settings)`, which returns a `Filter`: a pure function of one document.
No other code refers to a set by its name.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpc_llm.corpus.languages import scripts_of
from hpc_llm.errors import UserError
from hpc_llm.rundir.choices import choice_code, choice_names, load_choice
from hpc_llm.settings import CorpusSettings
from hpc_llm.settings.checks import require_choice

__all__ = ["NONE", "Filter", "Outcome", "build_filter", "code_of", "rule_sets"]

NONE = "none"
"""`corpus.clean` without rules."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a filter makes of one document."""

    text: str
    """The remaining text; of a dropped document the whole."""
    dropped: str | None = None
    """The rule that drops the document; None: it is kept."""
    removed: Sequence[tuple[str, str]] = ()
    """Lines removed from it, each as (rule, line)."""


Filter = Callable[[str], Outcome]
"""From a cleaned document to its outcome."""


def rule_sets() -> list[str]:
    """Return the values of `corpus.clean`, including those of plug-in folders."""
    return [NONE, *choice_names(sys.modules[__name__])]


def code_of(settings: CorpusSettings) -> dict[str, str]:
    """Return what stands for the code of a plug-in in fingerprints; {} for an own set of rules."""
    return {} if settings.clean == NONE else choice_code(sys.modules[__name__], settings.clean)


def build_filter(settings: CorpusSettings) -> Filter | None:
    """Return the filter of `corpus.language`, then `corpus.clean`; None: every document is kept.

    Raises `UserError` for unknown names and for word lists that cannot be read.
    """
    filters = [_of_script(settings)] if scripts_of(settings.language) else []
    if settings.clean != NONE:
        require_choice("corpus.clean", settings.clean, rule_sets())
        filters.append(load_choice(sys.modules[__name__], settings.clean, "build").build(settings))
    if len(filters) < 2:
        return filters[0] if filters else None
    script, rules = filters

    def both(text: str) -> Outcome:
        found = script(text)
        return found if found.dropped else rules(text)

    return both


def _of_script(settings: CorpusSettings) -> Filter:
    """Return the rule `script`: enough letters are of the scripts of the language."""
    import regex

    letters, least = regex.compile(r"\p{L}+"), settings.language.script_share
    scripts = scripts_of(settings.language)
    try:
        own = regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in scripts) + "]+")
    except regex.error as error:
        rule, fix = "has an unknown script", "use Unicode names such as Cyrillic, Greek, Latin"
        raise UserError("corpus.language.scripts", scripts, rule, fix) from error

    def outcome(text: str) -> Outcome:
        every = sum(map(len, letters.findall(text)))
        share = sum(map(len, own.findall(text))) / max(1, every)
        return Outcome(text, None if share >= least else "script")

    return outcome

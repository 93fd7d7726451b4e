"""The mixture of texts that a training stage reads."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings.corpus import LANGUAGES, CorpusSettings
from hpc_llm.settings.stage import SCRATCH, StageSettings

__all__ = ["Mixture", "check_replay", "mixture_of", "portions"]


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Texts and their shares of the tokens, as configured."""

    corpus: CorpusSettings
    parts: dict[str, float] | None
    """Shares by text, where target and source stand for all sources in these languages; they sum
    to 1. None: all sources, in the shares of the corpus."""

    @property
    def names(self) -> list[str]:
        """The texts, the main one first."""
        if self.parts is None:
            return list(self.corpus.sources)
        return list(dict.fromkeys(text for part in self.parts for text in self._texts(part)))

    def _texts(self, part: str) -> list[str]:
        """Return the texts that a part stands for: itself, or the sources in target or source."""
        return (self.corpus.texts_in(part) if part in LANGUAGES else []) or [part]

    @property
    def _by_sources(self) -> bool:
        """Whether the shares depend on those of the sources."""
        if self.parts is None:
            return True
        return bool(self.corpus.sources) and any(part in LANGUAGES for part in self.parts)

    @property
    def settings(self) -> Any:
        """What the shares depend on beside the texts, for fingerprints."""
        if not self._by_sources:
            return self.parts
        return {"parts": self.parts, **portions(self.corpus)}

    def shares(self, size: Callable[[str], int]) -> dict[str, float]:
        """Return the share of the tokens of each text; they sum to 1.

        `size` returns the tokens of a text; it is called only where shares depend on sizes.
        """
        base = self.corpus.shares(size) if self._by_sources else {}
        if self.parts is None:
            return base
        found = dict.fromkeys(self.names, 0.0)
        for part, share in self.parts.items():
            texts = self._texts(part)
            weights = {text: base[text] if text != part else 1.0 for text in texts}
            for text, weight in weights.items():
                found[text] += share * weight / sum(weights.values())
        return found


def portions(corpus: CorpusSettings) -> dict[str, Any]:
    """Return the settings on which the shares of the sources depend; {} without sources."""
    if not corpus.sources:
        return {}
    parts = {name: asdict(source) for name, source in corpus.sources.items()}
    for part in parts.values():
        del part["files"]
    return {"sources": parts, "order": list(parts), "temperature": corpus.temperature}


def mixture_of(corpus: CorpusSettings, stage: StageSettings, replay: float) -> Mixture:
    """Return the mixture of a stage; `replay` is the share of source text without sources."""
    parts: dict[str, float] | None = {"target": 1.0}
    if stage.text is not None:
        total = sum(stage.text.values())
        parts = {text: share / total for text, share in stage.text.items() if share}
    elif stage.from_stage == SCRATCH:
        parts = {"source": 1.0}
    elif corpus.sources:
        parts = None
    elif replay:
        parts = {"target": 1 - replay, "source": replay}
    return Mixture(corpus=corpus, parts=parts)


def check_replay(corpus: CorpusSettings, replay: float) -> None:
    """Raise `UserError` for `train.replay` beside sources, which have the shares of all text."""
    if corpus.sources and replay:
        rule = "has no effect on corpus.sources, which have shares of their own"
        fix = "remove it, and set the share of a source in one of corpus.source_languages"
        raise UserError("train.replay", replay, rule, fix)

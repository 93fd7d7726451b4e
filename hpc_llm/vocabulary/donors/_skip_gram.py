"""Skip-gram vectors by gensim (Mikolov et al. 2013, arXiv 1310.4546), in one thread.

More threads would make the vectors depend on their timing.
"""

from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.settings import DonorSettings

__all__ = ["Sentences", "arguments", "check_gensim"]

LONGEST = 10_000  # words of a sentence that gensim reads; it ignores the rest


def check_gensim(settings: DonorSettings) -> None:
    """Raise `UserError` unless gensim is installed."""
    if find_spec("gensim") is None:
        rule, fix = "needs the package gensim", "pip install 'hpc-llm[donors]'"
        raise UserError("transplant.donor.kind", settings.kind, rule, fix)


def arguments(settings: DonorSettings, dimensions: int, seed: int = 1) -> dict[str, Any]:
    """Return the arguments of gensim's models."""
    return {
        "vector_size": dimensions,
        "window": settings.window,
        "min_count": settings.min_count,
        "epochs": settings.epochs,
        "negative": settings.negatives,
        "sg": 1,
        "workers": 1,
        "seed": seed,
    }


class Sentences:
    """The first tokens of a text as lists of words; can be iterated several times."""

    def __init__(self, text: Iterable[Any], words: Sequence[str], most: int) -> None:
        """Read `most` tokens of `text`, the ids (length,) of documents; `words` are their names."""
        self._text, self._words, self._most = text, words, most

    def __iter__(self) -> Iterator[list[str]]:
        """Yield documents in parts of `LONGEST` words."""
        from hpc_llm.vocabulary.donors._vectors import up_to

        for document in up_to(self._text, self._most):
            for begin in range(0, len(document), LONGEST):
                yield [self._words[i] for i in document[begin : begin + LONGEST]]

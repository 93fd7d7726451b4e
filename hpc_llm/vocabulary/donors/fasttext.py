"""transplant.donor.kind=fasttext: skip-gram vectors of the new tokens and their character n-grams.

Bojanowski et al. 2017 (arXiv 1607.04606), by gensim: pip install 'hpc-llm[donors]'. The words are
the texts of the tokens, so rare tokens get the vectors of their n-grams. One thread and a fixed
seed: equal text, equal vectors.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpc_llm.settings import DonorSettings
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.donors._skip_gram import Sentences, arguments, check_gensim

if TYPE_CHECKING:
    import numpy as np

__all__ = ["check", "vectors"]

BUCKETS = (
    200_000  # rows for n-grams, by their hash: gensim's default takes 2.4 GB at 300 dimensions
)

check = check_gensim


def vectors(
    text: "Iterable[np.ndarray]",
    surfaces: Sequence[bytes | None],
    dimensions: int,
    settings: DonorSettings,
) -> Donor:
    """Return vectors of the tokens that are text and occur, or have n-grams, in the text."""
    import numpy as np
    from gensim.models import FastText

    from hpc_llm.vocabulary.donors._vectors import by_importance, count_tokens

    counts = count_tokens(text, len(surfaces), settings.max_tokens)
    words = [_word(i, surface) for i, surface in enumerate(surfaces)]
    found, known = np.zeros((len(words), dimensions)), np.zeros(len(words), dtype=bool)
    if (counts >= settings.min_count).any():
        sentences = Sentences(text, words, settings.max_tokens)
        model = FastText(sentences, bucket=BUCKETS, **arguments(settings, dimensions))
        for i, word in enumerate(words):
            known[i] = word in model.wv.key_to_index or (counts[i] > 0 and word in model.wv)
            if known[i]:
                found[i] = model.wv[word]
    return Donor(by_importance(found, known, dimensions), counts, known)


def _word(index: int, surface: bytes | None) -> str:
    """Return the word for a token: its text; special tokens and parts of characters by their id."""
    try:
        return f"\0{index}" if surface is None else surface.decode()
    except UnicodeDecodeError:
        return f"\0{index}"

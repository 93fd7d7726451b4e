"""transplant.donor.kind=word2vec: skip-gram vectors of the new tokens, trained on the target text.

By gensim: pip install 'hpc-llm[donors]'. One thread and a fixed seed: equal text, equal vectors.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpc_llm.settings import DonorSettings
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.donors._skip_gram import Sentences, arguments, check_gensim

if TYPE_CHECKING:
    import numpy as np

__all__ = ["check", "vectors"]

check = check_gensim


def vectors(
    text: "Iterable[np.ndarray]",
    surfaces: Sequence[bytes | None],
    dimensions: int,
    settings: DonorSettings,
) -> Donor:
    """Return vectors of the tokens that occur `donor.min_count` times or more."""
    import numpy as np
    from gensim.models import Word2Vec

    from hpc_llm.vocabulary.donors._vectors import by_importance, count_tokens

    size = len(surfaces)
    counts = count_tokens(text, size, settings.max_tokens)
    known = counts >= settings.min_count
    found = np.zeros((size, dimensions))
    if known.any():
        sentences = Sentences(text, [str(i) for i in range(size)], settings.max_tokens)
        model = Word2Vec(sentences, **arguments(settings, dimensions))
        for i in np.flatnonzero(known):
            found[i] = model.wv[str(i)]
    return Donor(by_importance(found, known, dimensions), counts, known)

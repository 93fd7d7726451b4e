"""transplant.donor.kind=cooccurrence: factors of the positive pointwise mutual information.

Skip-gram with negative sampling factorises a shifted PMI matrix (Levy and Goldberg 2014); here the
matrix itself is factorised (Levy, Goldberg and Dagan 2015, https://aclanthology.org/Q15-1016):
neighbours within a window weigh 1/distance, and the counts of contexts are smoothed by the power
3/4. Nothing is drawn at random, so the vectors depend only on the text.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hpc_llm.settings import DonorSettings
from hpc_llm.vocabulary.donors import Donor

if TYPE_CHECKING:
    import numpy as np

__all__ = ["vectors"]


def vectors(
    text: "Iterable[np.ndarray]",
    surfaces: Sequence[bytes | None],
    dimensions: int,
    settings: DonorSettings,
) -> Donor:
    """Return D = U S^(1/2) of the truncated SVD of the PPMI matrix M (size, size) = U S V^T."""
    import numpy as np
    from scipy.sparse import csr_array

    from hpc_llm.vocabulary.donors import _pairs

    size = len(surfaces)
    counts = np.zeros(size, np.int64)
    pairs = csr_array((size, size), dtype=np.int64)
    for documents in _pairs.text_chunks(text, settings.max_tokens):
        counts += np.bincount(np.concatenate(documents), minlength=size)
        pairs = pairs + _pairs.count_pairs(documents, size, settings.window)
    known = counts >= settings.min_count
    found = np.zeros((size, min(dimensions, max(1, int(known.sum()) - 1))))
    if known.sum() > 1:
        information = _pairs.positive_information(pairs[known][:, known])
        found[known] = _pairs.factors(information, found.shape[1])
    return Donor(found, counts, known & (np.abs(found).sum(1) > 0))

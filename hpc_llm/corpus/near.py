"""Near-duplicates by MinHash and locality-sensitive hashing (Broder 1997; Indyk and Motwani 1998).

A document is the set of its runs of `ngram` words; the similarity of two documents is the Jaccard
index of these sets. A signature holds the smallest of the hashes of a document under each of
buckets x rows hash functions: two signatures agree at a position with a probability that equals the
similarity s. Documents that agree in all rows of one bucket are candidates, which happens with
probability 1 - (1 - s^rows)^buckets. Connected candidates form a group. The longest document of a
group (of equally long ones, the one of the smallest digest) is kept, and those are dropped whose
signatures agree with its own in at least the share `verify` of the positions; the same is repeated
with the rest. So the result depends on the documents alone, not on their order, and every dropped
document is similar to one that is kept, however long the chain of candidates between them.

Memory: about 1 KB a document with the defaults, of which 448 bytes are its signature.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hpc_llm.corpus.shingles import mixed, normal_words, runs_of_words
from hpc_llm.settings.cleaning import MinhashSettings

__all__ = ["Copies", "NearCopies", "candidate_chance", "sign"]

BLOCK = 1024
"""Runs of words that are hashed at a time."""


def candidate_chance(similarity: float, buckets: int, rows: int) -> float:
    """Return the probability that two documents of this Jaccard index become candidates."""
    return 1 - (1 - similarity**rows) ** buckets


@cache
def _functions(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the constants of `count` hash functions, (count, 1) uint64 each."""
    constants = mixed(np.arange(1, 2 * count + 1, dtype=np.uint64)).reshape(2, count, 1)
    return constants[0], constants[1]


def sign(text: str, settings: MinhashSettings) -> np.ndarray | None:
    """Return the signature of `text`, (buckets x rows,) uint32; None: it has no run of words.

    The hash functions are h(x) = floor((a x + b mod 2^64) / 2^32) on 32-bit x, which are pairwise
    independent (Dietzfelbinger 1996).
    """
    runs = np.unique(runs_of_words(normal_words(text), settings.ngram) >> np.uint64(32))
    if not len(runs):
        return None
    factors, terms = _functions(settings.buckets * settings.rows)
    lowest = np.full(len(factors), np.iinfo(np.uint64).max)
    for start in range(0, len(runs), BLOCK):
        hashes = factors * runs[start : start + BLOCK] + terms  # (functions, BLOCK)
        np.minimum(lowest, hashes.min(axis=1), out=lowest)
    return (lowest >> np.uint64(32)).astype(np.uint32)


@dataclass
class Copies:
    """The near-duplicates of a corpus, by the places of its documents."""

    kept_by: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Of a dropped document: the kept one, and their similarity."""
    mixed: set[int] = field(default_factory=set)
    """Kept documents with another kept one in their group of candidates."""

    def clusters(self) -> dict[int, list[int]]:
        """Return the dropped documents by the kept one, in order."""
        found: dict[int, list[int]] = {}
        for dropped, (kept, _) in sorted(self.kept_by.items()):
            found.setdefault(kept, []).append(dropped)
        return found

    def sizes(self) -> dict[int, int]:
        """Return the number of clusters by their size."""
        return dict(sorted(Counter(len(one) + 1 for one in self.clusters().values()).items()))


class NearCopies:
    """Signatures of documents, and the near-duplicates among them."""

    def __init__(self, settings: MinhashSettings) -> None:
        """Begin without documents."""
        self.settings = settings
        self._signatures = bytearray()
        self._places: list[int] = []  # of the documents with a signature
        self._ranks: list[tuple[bool, int, bytes]] = []  # the lowest of a group is kept

    def __len__(self) -> int:
        """The number of documents."""
        return len(self._ranks)

    def add(self, text: str, digest: bytes, *, elsewhere: bool = False) -> None:
        """Add the next document. One that is `elsewhere`, in another text, is always kept."""
        signature = sign(text, self.settings)
        if signature is not None:
            self._signatures += signature.tobytes()
            self._places.append(len(self._ranks))
        self._ranks.append((not elsewhere, -len(text), digest))

    def find(self) -> Copies:
        """Return the near-duplicates; documents without a signature have none."""
        width = self.settings.buckets * self.settings.rows
        signatures = np.frombuffer(self._signatures, np.uint32).reshape(-1, width)
        copies = Copies()
        for group in _groups(signatures, self.settings.buckets):
            self._compare(group, signatures, copies)
        return copies

    def _compare(self, group: np.ndarray, signatures: np.ndarray, copies: Copies) -> None:
        """Add the near-duplicates in one group of rows of `signatures`."""
        rest = np.array(sorted(group, key=lambda row: self._ranks[self._places[row]]))
        kept = []
        while len(rest):
            first, rest = rest[0], rest[1:]
            kept.append(self._places[first])
            similar = (signatures[rest] == signatures[first]).mean(axis=1)
            near = similar >= self.settings.verify
            for row, share in zip(rest[near], similar[near], strict=True):
                if self._ranks[self._places[row]][0]:
                    copies.kept_by[self._places[row]] = (kept[-1], float(share))
            rest = rest[~near]
        if len(kept) > 1:
            copies.mixed.update(kept)


def _groups(signatures: np.ndarray, buckets: int) -> list[np.ndarray]:
    """Return the rows of connected candidates, for each group of at least two."""
    count = len(signatures)
    if not count:
        return []
    ends: list[Any] = []
    for bucket in np.split(signatures, buckets, axis=1):
        keys = np.zeros(count, np.uint64)
        for column in bucket.T:
            keys = mixed(keys + column.astype(np.uint64) + np.uint64(1))
        order = np.argsort(keys, kind="stable")
        equal = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        ends.append(np.stack([order[equal], order[equal + 1]]))
    pairs = np.concatenate(ends, axis=1)
    graph = coo_array((np.ones(pairs.shape[1], np.int8), tuple(pairs)), shape=(count, count))
    _, labels = connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    order = order[np.bincount(labels)[labels[order]] > 1]
    bounds = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, bounds) if len(order) else []

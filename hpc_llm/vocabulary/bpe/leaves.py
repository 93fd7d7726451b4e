"""Removal of tokens from a BPE vocabulary: only leaves of its merges, so the others stay reachable.

A token is a leaf if it is part of no merge that is kept. Text in which the removed tokens do not
occur keeps its tokens: no kept merge has lost a part (Purason et al. 2025, arXiv 2512.03989).
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping

from hpc_llm.vocabulary.bpe.tables import BpeTables, Merge

__all__ = ["removable_leaves"]


def removable_leaves(
    tables: BpeTables,
    counts: Mapping[str, int],
    most: int,
    below: int | None = None,
    kept: Collection[str] = (),
) -> list[str]:
    """Return at most `most` tokens to remove from `tables`, in the order of removal.

    The rarest leaf by `counts` comes first, the larger id of equally rare ones. Tokens with `below`
    occurrences or more stay (None: no such bound), and so do `kept` and `tables.fixed`. The count
    of a removed token passes to the two tokens that spell it now: parts of many rare tokens are
    not rare.
    """
    left, needed, merges = Counter(counts), Counter[str](), _merges_by_result(tables)
    for pairs in merges.values():
        for pair in pairs:
            needed.update(pair)
    stay = tables.fixed.union(kept)
    heap = [(left[t], -i, t) for t, i in tables.vocab.items() if t not in stay and not needed[t]]
    heapq.heapify(heap)
    removed: list[str] = []
    while heap and len(removed) < most:
        count, _, token = heapq.heappop(heap)
        if count != left[token]:  # it has grown since
            heapq.heappush(heap, (left[token], -tables.vocab[token], token))
            continue
        if below is not None and count >= below:
            break
        removed.append(token)
        for part in merges[token][0] if token in merges else ():
            left[part] += count
        for pair in merges.get(token, ()):
            needed.subtract(pair)
            for part in set(pair):
                if not needed[part] and part not in stay:
                    heapq.heappush(heap, (left[part], -tables.vocab[part], part))
    return removed


def _merges_by_result(tables: BpeTables) -> dict[str, list[Merge]]:
    """Return the merges of each token, in order of their rank."""
    found: defaultdict[str, list[Merge]] = defaultdict(list)
    for left, right in tables.merges:
        found[left + right].append((left, right))
    return dict(found)

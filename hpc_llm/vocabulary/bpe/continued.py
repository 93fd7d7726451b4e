"""Continued BPE: resumes the training of a BPE vocabulary on other text (Sennrich et al. 2016).

Words are encoded with the old merges; then the most frequent pair of neighbours is joined, again
and again, as in the training of a new vocabulary. The new merges have lower rank than all old ones,
so text without new pairs keeps its tokens, and every new token can be reached: the encoder makes
it in some word. Purason et al. 2025 (arXiv 2512.03989) compare this with appending the tokens of
another vocabulary, many of which no text reaches.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hpc_llm.vocabulary.bpe.joins import Joins
from hpc_llm.vocabulary.bpe.tables import BpeTables, Merge

__all__ = ["Additions", "continued_merges"]

Pair = tuple[int, int]
Entry = tuple[int, bytes, int, Pair]  # (-count, joined bytes, bytes of the left part, pair)


@dataclass(frozen=True, kw_only=True)
class Additions:
    """New tokens and merges, in the order in which they were found."""

    tokens: list[str]
    merges: list[Merge]
    """Merges of lower rank than all old ones; a token may have several."""
    counts: Counter[str]
    """How often each token, old and new, occurs in the words after the last merge. A few new
    tokens (about 1 in 600) are only steps to longer ones and do not occur any more."""


def continued_merges(
    tables: BpeTables,
    words: Mapping[str, int],
    tokens: int,
    min_count: int,
    scripts: Collection[str],
) -> Additions:
    """Return at most `tokens` new tokens of `tables` for `words` with counts.

    Letters of the `scripts` that the vocabulary spells by byte tokens come first. Then the most
    frequent pair of neighbours is joined if the joined text is a word, or a part of one, in the
    scripts (see `Joins`), as long as it occurs at least `min_count` times; equally frequent pairs
    in order of the bytes of their text. Special, unknown and byte tokens are never joined. The
    result depends on nothing else: not on the order of the words.
    """
    joins = Joins(scripts, (tables.surface(word).decode("utf-8", "ignore") for word in words))
    letters = _missing_letters(tables, words, min_count, joins.letters)[:tokens]
    grown = tables.with_additions(letters, ())
    training = _Training(grown, words, min_count, joins.allows, letters)
    while len(training.new) < tokens and (pair := training.most_frequent()):
        training.merge(pair)
    return Additions(
        tokens=list(training.new), merges=training.merges, counts=training.token_counts()
    )


def _missing_letters(
    tables: BpeTables, words: Mapping[str, int], min_count: int, letters: Collection[str]
) -> list[str]:
    """Return the `letters` that are no tokens, the most frequent first.

    At the byte level there are none: merges make letters of bytes.
    """
    missing = set() if tables.byte_level else set(letters) - tables.vocab.keys()
    counts: Counter[str] = Counter()
    for word, count in words.items() if missing else ():
        for letter in filter(missing.__contains__, word):
            counts[letter] += count
    frequent = [letter for letter, count in counts.items() if count >= min_count]
    return sorted(frequent, key=lambda letter: (-counts[letter], letter.encode()))


class _Training:
    """Words as lists of token numbers, the counts of their pairs, and the merges so far.

    Every word is encoded with all merges at all times. `where` may list words that have lost the
    pair since, and `heap` has entries with old counts, which are corrected when they come up.
    """

    def __init__(
        self,
        tables: BpeTables,
        words: Mapping[str, int],
        min_count: int,
        allows: Callable[[bytes], bool],
        letters: Sequence[str],
    ) -> None:
        self.tables, self.min_count, self.allows = tables, min_count, allows
        self.names = list(tables.vocab)
        self.surfaces = [tables.surface(token) for token in self.names]
        self.numbers = {token: number for number, token in enumerate(self.names)}
        self.new = dict.fromkeys(letters)
        self.merges: list[Merge] = []
        self.ranks = {
            (self.numbers[left], self.numbers[right]): rank
            for rank, (left, right) in enumerate(tables.merges)
        }
        self.texts = {word: place for place, word in enumerate(words)}
        self.weights = list(words.values())
        self.symbols = self._encoded(list(words))
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.where: defaultdict[Pair, list[int]] = defaultdict(list)
        for place, (symbols, weight) in enumerate(zip(self.symbols, self.weights, strict=True)):
            for pair in pairwise(symbols):
                self.counts[pair] += weight
                self.where[pair].append(place)
        self.heap: list[Entry] = []
        for pair in self.counts:
            self._push(pair)

    def _encoded(self, words: Sequence[str]) -> list[list[int]]:
        model = self.tables.model()
        return [[self.numbers[token.value] for token in model.tokenize(word)] for word in words]

    def _push(self, pair: Pair) -> None:
        count = self.counts[pair]
        if count >= self.min_count and pair not in self.ranks and self._may_join(pair):
            left, right = (self.surfaces[number] for number in pair)
            heapq.heappush(self.heap, (-count, left + right, len(left), pair))

    def _may_join(self, pair: Pair) -> bool:
        left, right = (self.names[number] for number in pair)
        apart = self.tables.apart
        if left in apart or right in apart or left + right in apart:
            return False
        return self.allows(self.surfaces[pair[0]] + self.surfaces[pair[1]])

    def most_frequent(self) -> Pair | None:
        """Return the pair to join next; None if no pair is frequent enough."""
        while self.heap:
            count, *_, pair = self.heap[0]
            if -count == self.counts[pair]:
                return pair
            heapq.heappop(self.heap)
            if -count > self.counts[pair]:  # if it has grown, it was pushed again
                self._push(pair)
        return None

    def merge(self, pair: Pair) -> None:
        """Make `pair` one token, in all words."""
        left, right = (self.names[number] for number in pair)
        joined, is_new = left + right, left + right not in self.numbers
        if is_new:
            self.numbers[joined] = len(self.names)
            self.names.append(joined)
            self.surfaces.append(self.tables.surface(joined))
            self.new[joined] = None
        self.ranks[pair] = len(self.tables.merges) + len(self.merges)
        self.merges.append((left, right))
        number = self.numbers[joined]
        changes: defaultdict[Pair, int] = defaultdict(int)
        for place in self.where.pop(pair):
            symbols = self.symbols[place]
            changed = _joined(symbols, pair, number)
            if len(changed) < len(symbols):  # else it has lost the pair
                self._change(place, changed if is_new else self._fully_merged(symbols), changes)
        whole = self.texts.get(joined) if is_new and self.tables.whole_words else None
        if whole is not None and len(self.symbols[whole]) > 1:
            self._change(whole, [number], changes)
        for changed_pair, change in changes.items():
            self.counts[changed_pair] += change
            if change > 0:
                self._push(changed_pair)

    def _change(self, place: int, symbols: list[int], changes: defaultdict[Pair, int]) -> None:
        """Replace the symbols of a word and add the changes of the counts to `changes`."""
        weight = self.weights[place]
        before = set(pairwise(self.symbols[place]))
        for pair in pairwise(self.symbols[place]):
            changes[pair] -= weight
        for pair in pairwise(symbols):
            changes[pair] += weight
            if pair not in before:
                self.where[pair].append(place)
        self.symbols[place] = symbols

    def _fully_merged(self, symbols: list[int]) -> list[int]:
        """Return `symbols` after all merges of any rank: the joined token may be part of others."""
        while True:
            ranked = [
                (self.ranks[p], i) for i, p in enumerate(pairwise(symbols)) if p in self.ranks
            ]
            if not ranked:
                return symbols
            _, i = min(ranked)
            joined = self.names[symbols[i]] + self.names[symbols[i + 1]]
            symbols = [*symbols[:i], self.numbers[joined], *symbols[i + 2 :]]

    def token_counts(self) -> Counter[str]:
        """Return how often each token occurs."""
        counts: Counter[str] = Counter()
        for symbols, weight in zip(self.symbols, self.weights, strict=True):
            for number in symbols:
                counts[self.names[number]] += weight
        return counts


def _joined(symbols: list[int], pair: Pair, number: int) -> list[int]:
    """Return `symbols` with each occurrence of `pair`, from the left, replaced by `number`."""
    left, right = pair
    result: list[int] = []
    place, last = 0, len(symbols) - 1
    while place <= last:
        if place < last and symbols[place] == left and symbols[place + 1] == right:
            result.append(number)
            place += 2
        else:
            result.append(symbols[place])
            place += 1
    return result

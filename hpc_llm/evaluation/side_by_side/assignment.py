"""Which annotator sees which answers, in which order and on which side.

Every choice is a keyed hash of (seed, annotator, question), so a study can be made again and does
not depend on the order of calls.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from hpc_llm.errors import UserError

__all__ = ["Card", "Design", "assign"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A question with two answers, as one annotator sees it."""

    id: str
    """Opaque: pages and answer files name the card by it."""
    question: str
    left: str
    """Name of the model whose answer stands on the left."""
    right: str
    repeat: bool = False
    """Whether the annotator has seen the question before, with sides swapped."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The size of a study."""

    annotators: int
    per_question: int | None = None
    """Annotators who see a question; None: all."""
    repeats: int = 0
    seed: int = 1


@dataclass(frozen=True)
class _Shown:
    question: str
    pair: tuple[str, str]


def assign(
    questions: Sequence[str], models: Sequence[str], design: Design
) -> dict[str, list[Card]]:
    """Return the cards of each annotator ("01", "02", ...) in the order in which they are shown.

    `questions` are ids. Each annotator sees a question with one pair of models. The numbers of
    questions per annotator, of pairs per question, and of left and right sides per annotator (of
    each pair, and of all cards with repeats) differ by at most one. Raises `UserError` for more
    repeats than a third of the questions that an annotator sees: fewer sides would not balance.
    """
    width = max(2, len(str(design.annotators)))
    names = [f"{number:0{width}}" for number in range(1, design.annotators + 1)]
    shown = _deal(questions, list(combinations(models, 2)), names, design)
    fewest = min(map(len, shown.values()))
    if design.repeats > fewest // 3:
        rule = f"must be at most a third of the {fewest} questions that an annotator sees"
        raise UserError("sbs.repeats", design.repeats, rule, f"use {fewest // 3} or less")
    return {name: _cards(name, shown[name], design) for name in names}


def _hash(seed: int, *parts: str) -> str:
    text = json.dumps(parts, ensure_ascii=False).encode()
    return hashlib.blake2b(text, key=str(seed).encode(), digest_size=8).hexdigest()


def _deal(
    questions: Sequence[str], pairs: Sequence[tuple[str, str]], names: Sequence[str], design: Design
) -> dict[str, list[_Shown]]:
    """Return what each annotator sees; a question goes to those who have the fewest so far."""
    seed, load = design.seed, Counter(dict.fromkeys(names, 0))
    shown: dict[str, list[_Shown]] = {name: [] for name in names}
    for rank, question in enumerate(sorted(questions, key=lambda one: _hash(seed, one))):
        ways = {name: (load[name], _hash(seed, name, question, "dealt")) for name in names}
        viewers = sorted(names, key=ways.__getitem__)[: design.per_question]
        for place, name in enumerate(sorted(viewers)):
            load[name] += 1
            shown[name].append(_Shown(question, pairs[(rank + place) % len(pairs)]))
    return shown


def _cards(name: str, shown: Sequence[_Shown], design: Design) -> list[Card]:
    """Return the cards of an annotator: first showings, and repeats in their last third."""

    def by(purpose: str, one: _Shown) -> str:
        return _hash(design.seed, name, one.question, purpose)

    flipped = _sides(shown, by)
    order = sorted(shown, key=lambda one: by("order", one))
    early, late = len(order) // 3, len(order) - len(order) // 3
    candidates = sorted(order[:early], key=lambda one: by("repeat", one)) + order[early:late]
    again = _repeats(candidates, flipped, design.repeats)
    first = [(one, False) for one in order]
    tail = first[late:] + [(one, True) for one in again]
    tail.sort(key=lambda item: by(f"tail {item[1]}", item[0]))
    return [
        _card(name, one, design.seed, flip=flipped[one.question] != repeat, repeat=repeat)
        for one, repeat in first[:late] + tail
    ]


def _sides(shown: Sequence[_Shown], by: Callable[[str, _Shown], str]) -> dict[str, bool]:
    """Return by question whether its pair is flipped: every second one of each pair."""
    order = sorted(shown, key=lambda one: (one.pair, by("side", one)))
    start = int(by("side", order[0]), 16) % 2 if order else 0
    return {one.question: (start + place) % 2 == 1 for place, one in enumerate(order)}


def _repeats(candidates: Sequence[_Shown], flipped: dict[str, bool], repeats: int) -> list[_Shown]:
    """Return the first `repeats` candidates that keep the sides of all cards balanced."""
    more = sum(flipped.values()) * 2 > len(flipped)  # flipped are one more than plain
    wanted = {more: repeats - repeats // 2, not more: repeats // 2}
    chosen = []
    for one in candidates:
        if wanted[flipped[one.question]]:
            wanted[flipped[one.question]] -= 1
            chosen.append(one)
    return chosen


def _card(name: str, one: _Shown, seed: int, *, flip: bool, repeat: bool) -> Card:
    left, right = reversed(one.pair) if flip else one.pair
    key = _hash(seed, name, one.question, "repeat" if repeat else "card")
    return Card(id=key, question=one.question, left=left, right=right, repeat=repeat)

"""Assignment of cards: complete, balanced, reproducible."""

from collections import Counter

import pytest
from errors import user_error

from hpc_llm.evaluation.side_by_side import Design, assign

QUESTIONS = [f"q{number}" for number in range(78)]
MODELS = ["base", "ours"]


def design(**changes):
    return Design(**{"annotators": 15, "repeats": 4, "seed": 1, **changes})


def spread(counts):
    return max(counts) - min(counts)


def imbalance(cards, models=MODELS):
    first = sum(models.index(card.left) < models.index(card.right) for card in cards)
    return abs(2 * first - len(cards))


def test_every_annotator_sees_every_question_once_and_the_repeats_swapped():
    for cards in assign(QUESTIONS, MODELS, design()).values():
        first = [card for card in cards if not card.repeat]
        again = [card for card in cards if card.repeat]
        assert sorted(card.question for card in first) == sorted(QUESTIONS)
        assert len({card.question for card in again}) == len(again) == 4
        place = {card.question: (at, card) for at, card in enumerate(cards) if not card.repeat}
        for at, card in enumerate(cards):
            if card.repeat:
                before, one = place[card.question]
                assert before < at
                assert (card.left, card.right) == (one.right, one.left)


@pytest.mark.parametrize("questions", [12, 13, 77, 78])
@pytest.mark.parametrize("repeats", [0, 3, 4])
def test_sides_are_balanced_within_one(questions, repeats):
    dealt = assign(QUESTIONS[:questions], MODELS, design(repeats=repeats))
    for cards in dealt.values():
        assert len(cards) == questions + repeats
        assert imbalance([card for card in cards if not card.repeat]) <= 1
        assert imbalance(cards) <= 1


def test_three_models_share_the_annotators_of_a_question():
    models = ["a", "b", "c"]
    dealt = assign(QUESTIONS, models, design(repeats=6))
    by_question, by_annotator = Counter(), Counter()
    for name, cards in dealt.items():
        assert imbalance(cards, models) <= 1
        for card in cards:
            if not card.repeat:
                pair = tuple(sorted((card.left, card.right)))
                by_question[card.question, pair] += 1
                by_annotator[name, pair] += 1
    assert set(by_question.values()) == {5}
    assert set(by_annotator.values()) == {26}


def test_fewer_annotators_per_question_are_dealt_evenly_and_mixed():
    dealt = assign(QUESTIONS, MODELS, design(per_question=3, repeats=0))
    assert spread([len(cards) for cards in dealt.values()]) <= 1
    viewers = {q: [] for q in QUESTIONS}
    for name, cards in dealt.items():
        for card in cards:
            viewers[card.question].append(name)
    assert {len(names) for names in viewers.values()} == {3}
    assert len({tuple(names) for names in viewers.values()}) > 50  # not always the same three


def test_order_and_ids_differ_between_annotators_and_seeds_and_are_reproducible():
    one, other = assign(QUESTIONS, MODELS, design()), assign(QUESTIONS, MODELS, design(seed=2))
    assert one == assign(list(reversed(QUESTIONS)), MODELS, design())
    orders = {tuple(card.question for card in cards) for cards in (*one.values(), *other.values())}
    assert len(orders) == 30
    sides = {
        tuple(card.left for card in sorted(cards, key=lambda card: (card.question, card.repeat)))
        for cards in one.values()
    }
    assert len(sides) == 15
    ids = [card.id for cards in one.values() for card in cards]
    assert len(set(ids)) == len(ids) == 15 * 82


def test_more_repeats_than_can_be_balanced_are_refused():
    with user_error("sbs.repeats", 4, value=5):
        assign(QUESTIONS[:12], MODELS, design(repeats=5))

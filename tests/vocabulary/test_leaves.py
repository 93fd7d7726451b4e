"""Removal of tokens: only leaves, rarest first, and all other text keeps its tokens."""

from collections import Counter

import numpy as np
import pytest
from bpe_bases import KINDS, backend, parts_of, russian, tables_of, written

from hpc_llm.vocabulary.bpe import continued_merges, count_words, removable_leaves

ENGLISH = ["the cat and the other cat sat on the mat", "12 of them <s>", "then what, cat?"]


@pytest.fixture(scope="module", params=KINDS)
def base(request):
    """A base that has seen Russian, too, with 80 tokens for it."""
    made = backend(request.param)
    tables = tables_of(made)
    words = count_words(russian(), made, tables)
    found = continued_merges(tables, words, 80, 2, ["Cyrillic"])
    return written(made, tables.with_additions(found.tokens, found.merges))


def token_counts(made, texts):
    encoded = made.encode_batch(texts, add_special_tokens=False)
    return Counter(token for found in encoded for token in found.tokens)


def test_rarest_leaves_go_first_and_their_counts_to_their_parts():
    made = backend("llama2")
    tables = tables_of(made).with_additions(
        ["аб", "абв", "вг", *"абвг"], [("а", "б"), ("аб", "в"), ("в", "г")]
    )
    counts = {token: 100 for token in tables.vocab} | {"аб": 0, "абв": 5, "вг": 4}
    assert removable_leaves(tables, counts, 1) == ["вг"]
    assert removable_leaves(tables, counts, 3, below=6) == ["вг", "абв", "аб"]
    assert removable_leaves(tables, counts | {"абв": 7}, 3, below=7) == ["вг"]
    assert removable_leaves(tables, counts, 3, below=6, kept=["вг", "абв"]) == []


@pytest.mark.parametrize("most", [1, 25, 100, 10_000])
def test_text_free_of_removed_tokens_keeps_its_tokens(base, most):
    texts = [*ENGLISH, *russian(1)]
    tables = tables_of(base)
    gone = removable_leaves(tables, token_counts(base, texts), most)
    assert 0 < len(gone) <= most
    assert not tables.fixed & set(gone)
    left = tables.without(gone)
    for pair in left.merges:  # closure
        assert {*pair, "".join(pair)} <= left.vocab.keys()
    small = written(base, left.compacted()[0])
    same = 0
    lines = [*texts, *(word for text in texts for word in text.split())]
    for text in lines:
        before = base.encode(text).tokens
        if not set(gone) & set(before):
            assert small.encode(text).tokens == before
            same += 1
        assert small.decode(small.encode(text).ids) == base.decode(base.encode(text).ids)
    assert same
    for token in left.vocab.keys() - tables.apart:  # reachable as before
        if [t.value for t in base.model.tokenize(token)] == [token]:
            assert [t.value for t in small.model.tokenize(token)] == [token]


def test_each_removed_token_was_a_leaf(base):
    tables = tables_of(base)
    gone = removable_leaves(tables, {}, 60)
    left = set(tables.vocab)
    for token in gone:
        alive = [pair for pair in tables.merges if {*pair, "".join(pair)} <= left]
        assert all(token not in pair for pair in alive)
        left.remove(token)


def test_ids_are_compacted_in_order(base):
    tables = tables_of(base)
    gone = removable_leaves(tables, {}, 30)
    small, old_ids = tables.without(gone).compacted()
    assert sorted(small.vocab.values()) == list(range(len(tables.vocab) - 30))
    assert np.all(np.diff(old_ids) > 0)
    assert all(tables.vocab[token] == old_ids[new] for token, new in small.vocab.items())
    made = written(base, small)
    assert made.get_vocab() == small.vocab
    assert made.encode("the cat").ids[0] == small.vocab["<s>"]  # the post-processor's, too
    for token in parts_of(made)["added_tokens"]:
        assert small.vocab[token["content"]] == token["id"]


def test_freed_ids_are_used_again(base):
    """What a swap needs: ranks follow the order of merges, whatever the ids."""
    tables = tables_of(base)
    thai = ["สวัสดี ครับ สวัสดี", "ภาษาไทย ครับ"] * 20
    gone = removable_leaves(tables, token_counts(base, ENGLISH), 20)
    left = tables.without(gone)
    words = count_words(thai, written(base, left), left)
    found = continued_merges(left, words, 20, 1, ["Thai"])
    free = sorted(tables.vocab[token] for token in gone)[: len(found.tokens)]
    swapped = left.with_additions(found.tokens, found.merges, free)
    made = written(base, swapped)
    assert len(set(swapped.vocab.values())) == len(swapped.vocab) <= len(tables.vocab)
    assert {t: tables.vocab[t] for t in left.vocab}.items() <= swapped.vocab.items()
    assert token_counts(made, thai) == found.counts
    assert made.encode(ENGLISH[0]).ids == written(base, left).encode(ENGLISH[0]).ids

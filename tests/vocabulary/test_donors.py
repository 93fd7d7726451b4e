"""Donors: vectors of new tokens by gensim and from a sibling model."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from errors import user_error
from tiny import settings

from hpc_llm import config
from hpc_llm.vocabulary.donors import donor_of
from hpc_llm.vocabulary.donors._vectors import by_importance, up_to
from hpc_llm.vocabulary.solvers import unit
from hpc_llm.vocabulary.surfaces import surfaces

RANDOM = np.random.default_rng(0)


def donor_settings(**changes):
    return replace(settings().transplant.donor, **changes)


def made(kind, text, texts, dimensions=8, **changes):
    return donor_of(kind)(text, texts, dimensions, donor_settings(kind=kind, **changes))


def twins():
    """Documents in which tokens 0 and 1 stand in the same places, and 2 in others; 7 is rare."""
    places = [(0, 3, 4), (1, 3, 4), (2, 5, 6)]
    draws = RANDOM.integers(0, 3, 600)
    return [np.array([i for draw in part for i in places[draw]]) for part in draws.reshape(60, 10)]


@pytest.mark.parametrize("kind", ["cooccurrence", "word2vec", "fasttext"])
def test_tokens_of_the_same_places_have_similar_vectors(kind):
    text = [*twins(), np.array([7])]
    texts = [b"aqxw", b"bmzt", b"ckgv", b"d", b"e", b"f", b"g", b"rare", None]
    first, again = (made(kind, text, texts, window=2, epochs=300) for _ in range(2))
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert first.fingerprint == again.fingerprint
    near, far = (unit(first.vectors) @ unit(first.vectors).T)[0, 1:3]
    assert near > far + 0.1
    assert first.counts.sum() == 1801
    assert first.known.tolist()[:7] == [True] * 7
    assert first.known[7] == (kind == "fasttext")  # rare, but some n-grams have vectors
    assert not first.known[8]
    columns = (first.vectors**2).sum(0)
    assert all(a >= b for a, b in pairwise(columns))


def test_principal_axes_keep_inner_products():
    vectors, known = RANDOM.normal(size=(20, 6)).astype(np.float32), RANDOM.random(20) < 0.8
    found = by_importance(vectors, known, 6)
    wanted = np.where(known[:, None], vectors, 0)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-5)
    np.testing.assert_array_equal(by_importance(vectors, known, 2), found[:, :2])


def test_text_ends_at_its_limit():
    documents = [np.arange(4), np.arange(0), np.arange(5), np.arange(3)]
    assert [len(one) for one in up_to(documents, 7)] == [4, 3]
    assert [len(one) for one in up_to(documents, 100)] == [4, 5, 3]


def test_a_sibling_gives_its_rows_by_string(stories):
    model, tokenizer = stories
    texts = [one and one.text for one in surfaces(tokenizer)]
    order = RANDOM.permutation(len(texts))
    donor = made(
        "model", [np.arange(9)], [texts[i] for i in order], 64, path=tokenizer.name_or_path
    )
    rows = model.get_input_embeddings().weight.detach().double().numpy()
    distinct = [i for i, text in enumerate(texts) if text is not None and texts.count(text) == 1]
    place = {int(old): new for new, old in enumerate(order)}
    new = [place[i] for i in distinct]
    assert donor.known[new].all()
    wanted = torch.pdist(torch.from_numpy(rows[distinct]))
    found = torch.pdist(torch.from_numpy(donor.vectors[new]))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_sibling_without_most_of_the_tokens_is_refused(stories, llama32k):
    texts = [one and one.text for one in surfaces(llama32k)]
    path = stories[1].name_or_path
    with user_error("transplant.donor.path", "2%", value=path):
        made("model", [], texts, path=path)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("model", "transplant.donor.path"), ("word2vec", "transplant.donor.kind")],
)
def test_what_a_donor_lacks_is_refused_before_anything_runs(kind, key, monkeypatch):
    monkeypatch.setattr("hpc_llm.vocabulary.donors._skip_gram.find_spec", lambda name: None)
    composed = config.compose([f"transplant.donor.kind={kind}"])
    with user_error(key):
        config.typed(composed)

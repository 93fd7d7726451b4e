"""What every initialisation keeps: the order of ids, counts, saved and merged models."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from families import tiny_config
from hypothesis import assume, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from tiny import settings, stage_of
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from hpc_llm.errors import UserError
from hpc_llm.surgery.loading import load_model
from hpc_llm.surgery.merge import merge_adapter, save_model
from hpc_llm.surgery.trainable import make_trainable
from hpc_llm.vocabulary.donors import Donor
from hpc_llm.vocabulary.initial import initial_names
from hpc_llm.vocabulary.rows import TrainingText
from hpc_llm.vocabulary.transplant import transplant

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LETTERS = "abcdefgh"
OLD = [*SPECIAL.values(), *LETTERS, *(one + two for one in "abcd" for two in LETTERS)]
NEW = [*SPECIAL.values(), *LETTERS, "ab", "bc", "abc", "aha", "ghgh", "bbb", "cad", "abcd", "z"]
SIDES = [(name, tied) for name in initial_names() for tied in (True, False)]
SIDES.remove(("tie", True))  # a tied model has no head that could copy the input


def tokenizer(tokens):
    """Return a unigram tokenizer that prefers long tokens, whatever the order of ids."""
    scores = [(token, -5.0 / len(token) - (token in SPECIAL.values())) for token in tokens]
    built = Tokenizer(models.Unigram(scores, unk_id=tokens.index("<unk>")))
    built.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=built, **SPECIAL)


def model_of(rows, tied):
    """Return a tiny Llama of `rows` tokens with random weights."""
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.vocab_size, config.tie_word_embeddings = rows, tied
    return AutoModelForCausalLM.from_config(config)


def plan_of(name, tied):
    """Return the settings of an initialisation; one that copies the input side is for the head."""
    plan = settings(
        "transplant.anchors.drop_norm_quantile=0", "transplant.distilled.steps=3"
    ).transplant
    return replace(plan, input="mean" if name == "tie" and not tied else name, output=name)


def text_of(tokens, seed=0):
    """Return documents of all `tokens`, and a vector for each that depends on its string."""

    def drawn(token):
        return np.random.default_rng([seed, *token.encode()])

    def vectors(largest):
        found = np.stack([drawn(token).normal(size=4) for token in tokens])
        counts = np.array([drawn(token).integers(1, 99) for token in tokens])
        return Donor(found[:, :largest], counts, np.ones(len(tokens), bool))

    order = sorted(range(len(tokens)), key=lambda i: tokens[i])
    begin = tokens.index("<s>")
    documents = [np.array([begin, i, j]) for i, j in pairwise(order)]
    return TrainingText(vectors=vectors, documents=documents)


def moved(name, tied, tokens):
    """Return input embedding and LM head of the transplant to a vocabulary, and the counts."""
    model = model_of(len(OLD), tied)
    counts, _ = transplant(
        model, tokenizer(OLD), tokenizer(tokens), plan_of(name, tied), 1, text_of(tokens)
    )
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return [end.weight.detach() for end in ends], counts


@pytest.mark.parametrize(("name", "tied"), SIDES)
def test_another_order_of_ids_is_another_order_of_rows_and_nothing_else(name, tied):
    """Invariant 2, from the tokenizers to the model."""
    order = np.random.default_rng(0).permutation(len(NEW))
    before, counts = moved(name, tied, NEW)
    after, again = moved(name, tied, [NEW[i] for i in order])
    for ours, theirs in zip(before, after, strict=True):
        torch.testing.assert_close(theirs, ours[order])
    assert counts["new"] == again["new"] == 7
    for side in ("input", "output"):
        if counts[side] is not None:
            assert counts[side]["sources"] == again[side]["sources"]


@pytest.mark.parametrize(("name", "tied"), SIDES)
def test_saved_loaded_and_merged_models_have_equal_logits(name, tied, tmp_path):
    """Invariant 12; the adapter is not zero, and the same merged as attached."""
    model, new = model_of(len(OLD), tied), tokenizer(NEW)
    transplant(model, tokenizer(OLD), new, plan_of(name, tied), 1, text_of(NEW))
    ids = torch.randint(4, len(NEW), (2, 16), generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def logits(one):
        return one.eval()(input_ids=ids).logits

    save_model(model, new, tmp_path / "transplant", torch.float32)
    cfg = settings("experiment=example").model
    again = load_model(tmp_path / "transplant", cfg, "fp32")
    assert torch.equal(logits(again), logits(model))
    head, inputs = again.get_output_embeddings(), again.get_input_embeddings()
    assert (head.weight is inputs.weight) == tied
    adapted = make_trainable(again, stage_of("lora"), False, 1).model
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    expected = logits(adapted)
    assert (expected - logits(model)).abs().max() > 0.01
    merged = merge_adapter(adapted, 1.0)
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    save_model(merged, new, tmp_path / "merged", torch.float32)
    last = load_model(tmp_path / "merged", cfg, "fp32")
    assert torch.equal(logits(last), logits(merged))


PIECES = st.lists(st.text("abcdyz ", min_size=1, max_size=4), max_size=30, unique=True)


@limits(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(SIDES), PIECES, PIECES, st.integers(0, 3))
def test_random_vocabularies_have_rows_and_counts_that_add_up(side, old, new, seed):
    """Invariant 13: no NaN, no zero row, each row from one source; or a fit without anchors."""
    name, tied = side
    old, new = [*SPECIAL.values(), *old], [*SPECIAL.values(), *new]
    model = model_of(len(old), tied)
    text, plan = text_of(new, seed), plan_of(name, tied)
    try:
        counts, ids = transplant(model, tokenizer(old), tokenizer(new), plan, seed, text)
    except UserError as error:
        if error.key not in ("transplant.donor.min_count", "transplant.input"):
            raise
        assume(False)
    assert counts["rows"] == len(new) == counts["special"] + counts["copied"] + counts["new"]
    assert counts["copied"] == len(set(old) & set(new)) - len(SPECIAL)
    assert counts["new"] == len(ids) == len(set(new) - set(old))
    for key, end in (
        ("input", model.get_input_embeddings()), ("output", model.get_output_embeddings())
    ):  # fmt: skip
        assert end.weight.shape[0] == len(new)
        assert end.weight.isfinite().all()
        assert (end.weight.abs().sum(1) > 0).all()
        if counts[key] is not None:
            assert sum(counts[key]["sources"].values()) == len(new)

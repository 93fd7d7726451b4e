"""The vocabulary transplant on real tokenizers and models."""

from dataclasses import replace

import pytest
import tiny
import torch
from errors import user_error
from live_bytes import LiveBytes
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from hpc_llm.accounting import Architecture
from hpc_llm.accounting.host_memory import HostSetup, host_memory
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.surfaces import pieces_of, surfaces
from hpc_llm.vocabulary.transplant import transplant


def test_surfaces_know_both_kinds_of_vocabulary(shared, llama32k):
    from transformers import GPT2Tokenizer

    gpt2 = GPT2Tokenizer.from_pretrained(shared / "data/tokenizers/gpt2")
    found = surfaces(gpt2)
    assert found[gpt2.convert_tokens_to_ids("Ġhello")] == (b" hello", False)
    assert found[gpt2.convert_tokens_to_ids("Ċ")] == (b"\n", False)
    assert found[gpt2.eos_token_id] is None
    llama = surfaces(llama32k)
    assert llama[llama32k.convert_tokens_to_ids("▁hello")] == (b" hello", False)
    assert llama[llama32k.convert_tokens_to_ids("<0xD0>")] == (b"\xd0", True)


def test_pieces_have_no_false_leading_space(llama32k):
    texts = ["интеллект", " интеллект", "ing", " the", "\n\n", "!"]
    found = pieces_of([text.encode() for text in texts], llama32k)
    for text, ids in zip(texts, found, strict=True):
        assert llama32k.decode(llama32k.encode("a", add_special_tokens=False) + ids) == "a" + text
    assert len(found[1]) == 3  # инте лле кт
    assert pieces_of([b"\xd0", None], llama32k) == [[], []]


def test_rows_move_by_string_and_means_are_means(stories, llama32k):
    model, old = stories
    before = model.get_input_embeddings().weight.detach().clone()
    counts, new = transplant_of(model, old, llama32k)
    after = model.get_input_embeddings().weight.detach()
    assert after.shape == (32000, 64)
    both = old.get_vocab().keys() & llama32k.get_vocab().keys()
    assert len(both) > 400
    for token in both:
        new_row, old_row = (t.convert_tokens_to_ids(token) for t in (llama32k, old))
        assert torch.equal(after[new_row], before[old_row]), token
    new_id = llama32k.convert_tokens_to_ids("▁lifetime")
    pieces = old.encode("lifetime", add_special_tokens=False)
    torch.testing.assert_close(after[new_id], before[pieces].mean(0))
    assert counts["rows"] == sum(counts[k] for k in ("special", "copied", "new"))
    assert counts["copied"] > 400
    known = {llama32k.convert_tokens_to_ids(token) for token in both}
    assert known.isdisjoint(new)
    assert len(new) == counts["new"] > 30_000
    assert counts["input"]["sources"] == {
        "copied": counts["copied"],
        "special": 3,
        "mean": counts["new"],
    }
    assert counts["special"] == 3


def transplant_of(model, old, new, **settings):
    return transplant(model, old, new, replace(tiny.settings().transplant, **settings), seed=1)


def test_the_same_vocabulary_changes_nothing(stories):
    model, tokenizer = stories
    ids = torch.tensor([[1, 400, 300, 20]])
    before = model(ids).logits
    counts, new = transplant_of(model, tokenizer, tokenizer)
    assert counts["copied"] + counts["special"] == 512
    assert new == []
    assert torch.equal(model(ids).logits, before)


def small_llama(tied):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=512, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_stays_tied_and_untied_has_its_own_head(stories, llama32k, tied):
    _, old = stories
    model = small_llama(tied)
    head = model.get_output_embeddings().weight.detach().clone()
    transplant_of(model, old, llama32k)
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (inputs.data_ptr() == outputs.data_ptr()) == tied
    the = llama32k.convert_tokens_to_ids("▁the")
    assert torch.equal(outputs[the], head[old.convert_tokens_to_ids("▁the")])
    assert model.config.vocab_size == 32000


def test_random_differs_from_mean_only_in_new_rows(stories, llama32k):
    model, old = stories
    tokens, _ = match_rows(old, llama32k, tiny.settings().transplant, seed=1)
    drawn = [i for i, ids in zip(tokens.ids, tokens.pieces, strict=True) if len(ids) != 1]
    mean = torch.zeros(tokens.size, dtype=torch.bool)
    mean[drawn] = True
    transplant_of(model, old, llama32k)
    first = model.get_input_embeddings().weight.detach().clone()
    again = AutoModelForCausalLM.from_pretrained(old.name_or_path)
    transplant_of(again, old, llama32k, input="random", output="random")
    second = again.get_input_embeddings().weight.detach()
    assert torch.equal(first[~mean], second[~mean])
    assert not torch.isclose(first[mean], second[mean]).all(1).any()


def test_a_letter_is_not_its_byte_token(stories, llama32k):
    _, old = stories
    tokens, _ = match_rows(old, llama32k, tiny.settings().transplant, seed=1)
    sources = dict(tokens.anchors)
    for token in ("A", "<0x41>", "z", "<0x7A>"):
        new_id, old_id = (t.convert_tokens_to_ids(token) for t in (llama32k, old))
        assert sources[new_id] == old_id, token


def test_two_initialisations_on_a_tied_model_are_refused(stories, llama32k):
    model, old = stories
    with user_error("transplant.output", "transplant.output=mean", value="random"):
        transplant_of(model, old, llama32k, output="random")


@pytest.mark.parametrize(("side", "inputs"), [("output", "mean"), ("input", "tie")])
def test_a_tie_on_a_tied_model_is_refused(stories, llama32k, side, inputs):
    model, old = stories
    with user_error(f"transplant.{side}", "mean", value="tie"):
        transplant_of(model, old, llama32k, input=inputs, output="tie")


def test_a_head_of_its_own_survives_a_configuration_that_says_tied(stories, llama32k, tmp_path):
    """Loading keeps such a head, so the saved transplant must keep it, too."""
    _, old = stories
    small_llama(tied=False).save_pretrained(tmp_path / "base")
    file = tmp_path / "base/config.json"
    file.write_text(
        file.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    transplant_of(model, old, llama32k)
    model.save_pretrained(tmp_path / "new")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    ids = torch.tensor([[1, 400, 300, 20]])
    torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_its_memory_is_that_of_the_plan(stories, llama32k):
    """The new matrices are the result; what lives beside them is in the formula, too."""
    model, old = stories
    arch = Architecture.from_config(model.config.to_dict() | {"vocab_size": len(llama32k)})
    setup = HostSetup(
        width=4, nodes=1, ranks_per_node=1, zero_stage=0, sharded=False, offload_optimizer=False,
        offload_parameters=False,
    )  # fmt: skip
    planned = host_memory(arch, model.config.vocab_size, 0, setup).transplant
    with LiveBytes() as live:
        transplant(model, old, llama32k, tiny.settings().transplant, seed=1)
    assert 0.5 * planned < live.peak <= planned

"""Tokens without an embedding, and the token ids of configurations, in the new vocabulary."""

import pytest
import torch
from tiny import settings
from tokenizers import AddedToken
from transformers import AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from hpc_llm.settings import TokenizerSettings
from hpc_llm.tokenizer import export_fast, special_tokens_of, train_vocabulary
from hpc_llm.tokenizer.text import text_encoder
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.transplant import transplant

STOPS = ["<|end_of_text|>", "<|eot_id|>"]


def changed(shared, *tokens, pad=None):
    """The tokenizer of the stories with `tokens` added; it has 512 of its own."""
    tokenizer = AutoTokenizer.from_pretrained(shared / "data/models/stories260K-hf")
    roles = [str(token) for token in tokens if getattr(token, "special", False)]
    tokenizer.add_tokens([token for token in tokens if str(token) not in roles])
    tokenizer.add_special_tokens({"additional_special_tokens": roles})
    if pad is not None:
        tokenizer.add_special_tokens({"pad_token": pad})
    return tokenizer


def tiny(rows=512, **ids):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=rows, tie_word_embeddings=False, **ids,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def adapted(model, old, new):
    return transplant(model, old, new, settings().transplant, seed=1)


def special(*tokens):
    return [AddedToken(token, special=True) for token in tokens]


def test_tokens_without_a_row_get_the_mean(shared):
    old = changed(shared, AddedToken("plain token"), *special("<role>"), pad="<pad>")
    new = changed(shared, *special("<role>"), AddedToken("plain token"), pad="<pad>")
    model = tiny()
    before = model.get_input_embeddings().weight.detach().clone()
    counts, unseen = adapted(model, old, new)
    after = model.get_input_embeddings().weight.detach()
    assert (counts["without_row"], counts["rows"], counts["unspelled"]) == (3, 515, 2)
    assert torch.equal(after[:512], before)
    named = {token: new.convert_tokens_to_ids(token) for token in ("<pad>", "<role>")}
    for index in named.values():
        torch.testing.assert_close(after[index], before.mean(0))
    plain = new.convert_tokens_to_ids("plain token")  # spelled with the old tokens
    spelled = text_encoder(old, rows=512)(["a plain token"])[0][1:]
    assert set(unseen) == {plain, *named.values()}
    assert len(spelled) > 1
    assert max(spelled) < 512
    assert not torch.allclose(after[plain], before.mean(0))


@pytest.mark.parametrize("token", ["\n", "\t", "7", "<0x0A>"])
def test_a_special_token_that_is_text_keeps_its_row(shared, token, tmp_path):
    """The base flags it as special; in the new vocabulary it is an ordinary token."""
    old = changed(shared, *special(token, "<role>"))
    texts = [" ".join(word for word in old.get_vocab() if word.isalpha())] * 2
    plan = TokenizerSettings(
        model_type="bpe", vocab_size=384, source_share=0, max_characters=10**6, threads=1,
        path=None, max_piece_characters=16, special_strings="text",
    )  # fmt: skip
    specials = special_tokens_of(old)
    assert specials.additional == ("<role>",)
    new = export_fast(
        train_vocabulary(texts, [], plan, specials, 1, tmp_path), old, specials, None, tmp_path
    )
    tokens, _ = match_rows(old, new, settings().transplant, 1, 514)
    index = new.convert_tokens_to_ids(token)
    assert index not in new.all_special_ids
    assert dict(tokens.anchors)[index] == old.convert_tokens_to_ids(token)


def test_a_padded_embedding_has_no_token_without_a_row(shared):
    old = changed(shared, pad="<pad>")
    _, counts = match_rows(old, old, settings().transplant, 1, 640)
    assert (counts.without_row, counts.unspelled) == (0, 0)


def test_lists_of_stop_tokens_stay(shared):
    old = changed(shared, *special(*STOPS, "<image>", "<gone>"), pad="<pad>")
    new = changed(shared, *special("<image>"), *special(*reversed(STOPS)), pad="<pad>")
    of_old, of_new = (
        {token: tokenizer.convert_tokens_to_ids(token) for token in (*STOPS, "<image>", "<pad>")}
        for tokenizer in (old, new)
    )
    gone = old.convert_tokens_to_ids("<gone>")
    stops = [of_old[token] for token in STOPS]
    model = tiny(600, eos_token_id=stops, pad_token_id=of_old["<pad>"])
    model.config.image_token_index = of_old["<image>"]
    model.config.audio_config = {"audio_token_id": of_old["<image>"], "end_token_ids": [gone]}
    model.config.draft_config = LlamaConfig(eos_token_id=stops, bos_token_id=1)
    model.generation_config = GenerationConfig(
        eos_token_id=[*stops, gone, 410],
        forced_eos_token_id=gone,
        decoder_start_token_id=of_old["<image>"],
        bad_words_ids=[[261, stops[0]], [261, gone]],
        max_length=77,
    )
    counts, _ = adapted(model, old, new)
    config, generation = model.config, model.generation_config
    expected = [of_new[token] for token in STOPS]
    assert config.eos_token_id == config.draft_config.eos_token_id == expected
    assert (config.bos_token_id, config.pad_token_id) == (1, of_new["<pad>"])
    assert config.image_token_index == of_new["<image>"] == generation.decoder_start_token_id
    assert config.audio_config == {"audio_token_id": of_new["<image>"], "end_token_ids": None}
    assert generation.eos_token_id == [*expected, 410]  # the space is an ordinary token of both
    assert generation.bad_words_ids == [[261, expected[0]]]
    assert generation.forced_eos_token_id is None
    assert (generation.max_length, generation.bos_token_id) == (77, 1)
    assert len(counts["dropped_token_ids"]) == 4
    assert all("<gone>" in place for place in counts["dropped_token_ids"])


@pytest.mark.parametrize("wrong", [None, 99, 100_000])
def test_roles_that_the_configuration_does_not_know(shared, wrong):
    """An id that is no special token of the base is a default of its class."""
    old = changed(shared, pad="<pad>")
    model = tiny(600, eos_token_id=wrong, bos_token_id=wrong, pad_token_id=wrong and 512)
    counts, _ = adapted(model, old, old)
    config = model.config
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 512)
    assert counts["dropped_token_ids"] == []

"""One rule from text to ids, with real tokenizers; sentencepiece is the reference for letters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from errors import user_error
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import Unigram, WordLevel
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from hpc_llm.settings import TokenizerSettings
from hpc_llm.tokenizer import (
    SpecialTokens,
    encode_shards,
    export_fast,
    open_shards,
    text_encoder,
    train_vocabulary,
)
from hpc_llm.tokenizer.text import first_token, special_strings

Settings = Callable[..., TokenizerSettings]
LITERAL = [
    *("a </s> b", "</s>", "<s>x</s><s>", "<unk>", "x<unk>y", "<pad>", "</s>\n\n<s>"),
    *("the <|endoftext|> token", "[INST] Привет [/INST]", "<tool_call>{}</tool_call>", "plain"),
    *("<|im_start|>user\nда<|im_end|>", ""),
]
ROLES = SpecialTokens(additional=("[INST]", "<tool_call>", "<|im_start|>", "<|im_end|>"))
REAL = {
    "llama": "tokenizers/llama2-32k/tokenizer.model",
    "stories": "models/stories260K-hf/tokenizer.model",
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("slow", [False, True])
def test_literal_special_strings_are_letters_of_a_base(
    name: str, slow: bool, shared: Path, nasty: list[str]
) -> None:
    model = shared / "data" / REAL[name]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    base: Any = AutoTokenizer.from_pretrained(model.parent)
    if slow:
        base = SentencePieceBackend(vocab_file=str(model), **names)
    assert base.is_fast != slow
    texts = LITERAL if slow else [*LITERAL, *filter(str.strip, nasty)]
    expected = SentencePieceProcessor(model_file=str(model)).encode(LITERAL)
    assert text_encoder(base)(LITERAL) == expected
    tokens = base(texts, add_special_tokens=False)["input_ids"]
    assert text_encoder(base, "tokens")(texts) == tokens
    assert tokens[: len(LITERAL)] != expected


def test_literal_special_strings_are_letters_of_gpt2(shared: Path, nasty: list[str]) -> None:
    base = GPT2Tokenizer.from_pretrained(shared / "data/tokenizers/gpt2")
    ids = text_encoder(base)([*LITERAL, *nasty])
    assert base.batch_decode(ids) == [*LITERAL, *nasty]
    assert base.eos_token_id not in {index for each in ids for index in each}
    assert text_encoder(base)(nasty) == base(nasty, add_special_tokens=False)["input_ids"]


def test_a_new_vocabulary_trains_on_what_is_scored(
    sample: dict[str, list[str]], settings: Settings, nasty: list[str], tmp_path: Path
) -> None:
    """Both kinds of models, for texts full of what the base calls special."""
    html = ["<s>the</s> <tool_call>" + text for text in sample["en"]]
    texts = [*LITERAL, *nasty, *html]
    for kind in ("unigram", "bpe"):
        folder = tmp_path / kind
        plan = settings(model_type=kind, vocab_size=700)
        model = train_vocabulary(html, [], plan, ROLES, 1, folder)
        export_fast(model, None, ROLES, 512, folder / "out")
        new = AutoTokenizer.from_pretrained(folder / "out")
        for special, fast in (("text", None), ("tokens", new)):
            encode_shards(texts, model, folder / special, 2, fast)
            trained = [ids[1:-1].tolist() for ids in open_shards(folder / special)]
            assert text_encoder(new, special)(texts) == trained
            assert new.batch_decode(trained) == texts
            of_role = {new.convert_tokens_to_ids(token) for token in special_strings(new)}
            used = of_role & {index for ids in trained for index in ids}
            assert len(used) == (0 if special == "text" else 7)


def test_a_word_vocabulary_and_plain_text_that_is_special() -> None:
    words = {"[UNK]": 0, "a": 1, "<call>": 2, "b": 3}
    inner = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    base = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", eos_token="b")
    base.add_tokens([AddedToken("<call>"), AddedToken("\n", special=True), AddedToken("    ")])
    base.chat_template = "<call>\n    {{ messages }}"
    assert special_strings(base) == {"[UNK]", "b", "<call>"}
    newline, spaces = base.convert_tokens_to_ids(["\n", "    "])
    assert text_encoder(base)(["a <call> a\na    a"]) == [[1, 0, 1, newline, 1, spaces, 1]]
    assert text_encoder(base, "tokens")(["a <call>\nb"]) == [[1, 2, newline, 3]]


def test_tokens_without_an_embedding_are_letters(shared: Path) -> None:
    base = AutoTokenizer.from_pretrained(shared / "data/models/stories260K-hf")
    plain = text_encoder(base)(["Tom <pad> and the big dog"])
    base.add_special_tokens({"pad_token": "<pad>"})
    base.add_tokens(["big dog"])
    for special in ("text", "tokens"):
        assert text_encoder(base, special, 512)(["Tom <pad> and the big dog"]) == plain
    assert max(text_encoder(base, "tokens", 514)(["Tom <pad> and the big dog"])[0]) == 513
    with user_error("model.path", 400):
        text_encoder(base, rows=400)(["Tom zebra"])


def test_the_first_token_has_an_embedding(shared: Path) -> None:
    base = AutoTokenizer.from_pretrained(shared / "data/models/stories260K-hf")
    assert (first_token(base), first_token(base, 2), first_token(base, 1)) == (1, 1, None)
    base.bos_token = None
    assert (first_token(base), first_token(base, 2)) == (2, None)


def test_a_vocabulary_that_cannot_encode_a_text_is_named() -> None:
    backend = Tokenizer(Unigram([("a", -1.0), ("b", -2.0)]))
    encode = text_encoder(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert encode(["ab"]) == [[0, 1]]
    with user_error("model.path", "unk_id"):
        encode(["abc"])

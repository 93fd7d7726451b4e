from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from hpc_llm.tokenizer import SpecialTokens, special_tokens_of

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<tool_call><|im_end|>{% endfor %}"


@pytest.fixture
def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")),
        unk_token="[UNK]",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|reserved|>"],
        padding_side="left",
    )
    tokenizer.add_tokens([AddedToken("<tool_call>"), AddedToken("    ")])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_roles_and_the_tokens_of_the_template(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    specials = special_tokens_of(chat_tokenizer)
    assert (specials.unk, specials.bos, specials.eos, specials.pad) == (
        *("[UNK]", None, "<|im_end|>", None),
    )
    assert sorted(specials.additional) == ["<tool_call>", "<|im_start|>", "<|reserved|>"]
    assert specials.unk_piece == "[UNK]"


def test_a_base_without_an_end(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.eos_token = None
    assert special_tokens_of(chat_tokenizer).eos == "</s>"
    chat_tokenizer.bos_token = "<|reserved|>"
    assert special_tokens_of(chat_tokenizer).eos == "<|reserved|>"


def test_real_tokenizers(shared: Path) -> None:
    llama = AutoTokenizer.from_pretrained(shared / "data/tokenizers/llama2-32k")
    assert special_tokens_of(llama) == SpecialTokens()
    gpt2 = GPT2Tokenizer.from_pretrained(shared / "data/tokenizers/gpt2")
    end = "<|endoftext|>"
    assert special_tokens_of(gpt2) == SpecialTokens(end, end, end)
    assert special_tokens_of(gpt2).unk_piece == "<unk>"

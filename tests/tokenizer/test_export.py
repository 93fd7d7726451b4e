import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor
from tiny import settings as run_settings
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast
from transformers.models.auto import tokenization_auto

from hpc_llm.corpus import read_documents
from hpc_llm.settings import CorpusSettings, TokenizerSettings
from hpc_llm.surgery.loading import load_tokenizer
from hpc_llm.tokenizer import SpecialTokens, export_fast, special_tokens_of, train_vocabulary
from hpc_llm.tokenizer.autoload import _is_overruled

Sample = dict[str, list[str]]
Settings = Callable[..., TokenizerSettings]


def require_equal(fast: PreTrainedTokenizerFast, model: Path, texts: list[str]) -> None:
    """Check that ids are sentencepiece's and that texts come back, plain and with BOS."""
    expected = SentencePieceProcessor(model_file=str(model)).encode(texts)
    ids = fast(texts, add_special_tokens=False)["input_ids"]
    assert [text for text, a, b in zip(texts, ids, expected, strict=True) if a != b] == []
    assert [text for text, i in zip(texts, ids, strict=True) if fast.decode(i) != text] == []
    framed = fast(texts)["input_ids"]
    assert fast.batch_decode(framed, skip_special_tokens=True) == texts


def test_ids_are_those_of_sentencepiece(
    vocabulary: Path, sample: Sample, nasty: list[str], tmp_path: Path
) -> None:
    exported = export_fast(vocabulary, None, SpecialTokens(), 100_000, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == exported.get_vocab()
    assert len(loaded) == 1024
    for fast in (exported, loaded):
        require_equal(fast, vocabulary, [*nasty, *sample["ru"], *sample["en"]])


def test_ids_on_real_text(
    shared: Path, vocabulary: Path, tmp_path: Path, corpus_settings: CorpusSettings
) -> None:
    export_fast(vocabulary, None, SpecialTokens(), 100_000, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for name in ("ru/ru_tinystories", "ru/ru_prose", "en/en_stories_books"):
        entry = f"{shared}/data/{name}.jsonl.gz"
        texts = list(read_documents(entry, corpus_settings))[::30]
        assert len(texts) > 80
        require_equal(loaded, vocabulary, texts)


def test_attributes_of_the_tokenizer(vocabulary: Path, tmp_path: Path) -> None:
    export_fast(vocabulary, None, SpecialTokens(), 512, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.unk_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert loaded.pad_token is None
    assert loaded.model_max_length == 512
    encoded = loaded("Слово")
    assert set(encoded) == {"input_ids", "attention_mask"}  # what a decoder-only model takes
    assert encoded["input_ids"][0] == 1
    assert encoded["input_ids"][-1] != 2
    assert not (tmp_path / "tokenizer.model").exists()
    assert (tmp_path / "sentencepiece.model").read_bytes() == vocabulary.read_bytes()


def test_pieces_fit_together_anywhere(vocabulary: Path, tmp_path: Path) -> None:
    """Streams of tokens and prompts in parts work: there is no false space at a beginning."""
    fast = export_fast(vocabulary, None, SpecialTokens(), 512, tmp_path)
    text = "Столица Франции — Париж.\n Да, 2 раза."
    ids = fast(text, add_special_tokens=False)["input_ids"]
    parts = [(fast.decode(ids[:k]), fast.decode(ids[k:])) for k in range(len(ids))]
    assert [head for head, tail in parts if head + tail != text] == []
    glued = fast(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]
    assert glued == [1, *ids, 2]
    assert fast.decode(glued) == f"<s>{text}</s>"


@pytest.mark.parametrize("model_type", ["llama", "mistral", "gpt2", "qwen2"])
def test_it_loads_beside_the_config_of_any_model(
    model_type: str, vocabulary: Path, tmp_path: Path
) -> None:
    fast = export_fast(vocabulary, None, SpecialTokens(), 512, tmp_path / "a", model_type)
    fast.save_pretrained(tmp_path / "b")
    for name in ("a", "b"):
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": model_type}))
    text = "Привет,  мир!\n\tdef f(): 12"
    for trust in (False, True):
        loaded = AutoTokenizer.from_pretrained(tmp_path / "a", trust_remote_code=trust)
        assert loaded(text)["input_ids"] == fast(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    if model_type == "qwen2":  # the trap is there: without our entry another class is loaded
        trapped = AutoTokenizer.from_pretrained(tmp_path / "b")
        assert trapped(text)["input_ids"] != fast(text)["input_ids"]


def overruled() -> list[str]:
    names = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    return sorted(name for name in names if _is_overruled(name))


@pytest.mark.parametrize("model_type", overruled())
@pytest.mark.parametrize("config", [True, False])
def test_the_run_loads_the_tokenizer_it_wrote(
    model_type: str, config: bool, vocabulary: Path, tmp_path: Path
) -> None:
    """Without code of the folder, in the stage's folder and beside the model."""
    fast = export_fast(vocabulary, None, SpecialTokens(), 512, tmp_path, model_type)
    if config:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    loaded = load_tokenizer(tmp_path, run_settings().model)
    text = "Привет,  мир!\n\tdef f(): 12"
    assert loaded.get_vocab() == fast.get_vocab()
    assert loaded(text)["input_ids"] == fast(text)["input_ids"]


@pytest.fixture
def chat_base() -> PreTrainedTokenizerFast:
    """A base tokenizer with a chat template that adds EOS but no BOS."""
    inner = Tokenizer(WordLevel({"a": 0, "[UNK]": 1, "<|im_end|>": 2}, unk_token="[UNK]"))
    inner.post_processor = TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", 2)]
    )
    base = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        padding_side="left",
    )
    base.add_tokens([AddedToken("<tool_call>"), AddedToken("    ")])
    base.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<tool_call><|im_end|>"
        "{% endfor %}"
    )
    return base


def test_a_chat_template_is_carried_over(
    chat_base: PreTrainedTokenizerFast, sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    specials = special_tokens_of(chat_base)
    plan = settings(source_share=0, vocab_size=512)
    model = train_vocabulary(sample["ru"], [], plan, specials, 1, tmp_path)
    export_fast(model, chat_base, specials, 512, tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(loaded) == 512
    assert loaded.chat_template == chat_base.chat_template
    assert loaded.padding_side == "left"
    assert loaded("а")["input_ids"][-1] == loaded.eos_token_id
    assert loaded.bos_token is None
    messages = [{"role": "user", "content": "Привет"}]
    ids = loaded.apply_chat_template(messages, tokenize=True, return_dict=False)
    tokens = loaded.convert_ids_to_tokens(ids)
    assert tokens[0] == "<|im_start|>"
    assert tokens[-2:] == ["<tool_call>", "<|im_end|>"]
    # as in the base, the tool's mark is text and the role's mark is not
    assert loaded.decode(ids, skip_special_tokens=True) == "user\nПривет<tool_call>"


def test_real_bases(
    shared: Path, sample: Sample, settings: Settings, tmp_path: Path, nasty: list[str]
) -> None:
    tokenizers = shared / "data" / "tokenizers"
    llama = AutoTokenizer.from_pretrained(tokenizers / "llama2-32k")
    gpt2 = GPT2Tokenizer.from_pretrained(tokenizers / "gpt2")
    for name, base in (("llama", llama), ("gpt2", gpt2)):
        specials = special_tokens_of(base)
        plan = settings(source_share=0, vocab_size=512)
        model = train_vocabulary(sample["ru"], [], plan, specials, 1, tmp_path / name)
        export_fast(model, base, specials, 512, tmp_path / name / "out")
        loaded = AutoTokenizer.from_pretrained(tmp_path / name / "out")
        require_equal(loaded, model, nasty)
        assert loaded.bos_token == base.bos_token
        assert loaded.eos_token == base.eos_token
        adds_bos = loaded("Слово")["input_ids"][0] == loaded.bos_token_id
        assert adds_bos == (name == "llama")

"""tokenizer.path: a tokenizer of the user's own in place of a trained one."""

from types import SimpleNamespace

import pytest
from errors import user_error
from families import tokenizer as letters
from tiny import settings
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hpc_llm.tokenizer.own import load_own, own_folder, own_size, require_lossless
from hpc_llm.vocabulary.modes import Base, adapted_rows, mode_of

TEXT = "Жили-были  старик\n\tсо старухой. 123"


@pytest.mark.parametrize("name", ["llama2-32k", "gpt2"])
def test_a_published_tokenizer_is_written_for_transformers(shared, tmp_path, name):
    path = str(shared / "data/tokenizers" / name)
    cfg = settings("model=weights", f"tokenizer.path={path}", "model.path=x")
    model = str(shared / "data/models/stories260K-hf")
    base = Base(
        cfg=cfg, path=model, tokenizer=AutoTokenizer.from_pretrained(model), rows=512,
        texts=lambda language: [TEXT],
    )  # fmt: skip
    built = mode_of(cfg).build(base, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    (ids,) = built.coder.encode([TEXT])
    assert ids == again.encode(TEXT, add_special_tokens=False)
    assert again.decode(ids) == TEXT
    assert (tmp_path / "tokenizer.json").is_file()
    assert built.coder.end == (again.eos_token_id,)
    assert adapted_rows(cfg, 512) == own_size(path) == built.coder.size == len(again)


def test_a_missing_folder_and_one_without_a_tokenizer_are_refused(tmp_path):
    with user_error("tokenizer.path", value=str(tmp_path / "none")):
        own_folder(str(tmp_path / "none"))
    with user_error("tokenizer.path", "tokenizer.json", value=str(tmp_path)):
        own_folder(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    for use in (load_own, own_size):
        with user_error("tokenizer.path", "save_pretrained"):
            use(str(tmp_path))


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path):
    plain = PreTrainedTokenizerFast(tokenizer_object=letters(64, 0).backend_tokenizer)
    plain.save_pretrained(tmp_path)
    with user_error("tokenizer.path", "eos_token"):
        load_own(str(tmp_path))


def test_a_lossy_tokenizer_is_refused_with_the_first_difference():
    lower = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    lower.normalizer, lower.decoder = normalizers.Lowercase(), decoders.Fuse()
    texts = ["ab", "aB", "ba", "AA"]

    def encode(batch):
        return [found.ids for found in lower.encode_batch(batch)]

    with user_error("tokenizer.path", "2 of 4", "'B'", "'b'", value="here"):
        require_lossless(encode, lower.decode, texts, "here")
    require_lossless(encode, lower.decode, ["ab", "ba"], "here")


def test_a_mode_that_keeps_the_tokenizer_refuses_another_one():
    with user_error("tokenizer.path", "transplant=replace", value="folder"):
        settings("transplant=keep", "tokenizer.path=folder")


def test_longer_pieces_by_a_setting(tmp_path):
    from hpc_llm.tokenizer import SpecialTokens, train_vocabulary

    plan = settings("tokenizer.vocab_size=384").tokenizer
    word = "достопримечательность"
    lengths = []
    for most in (16, 32):
        own = SimpleNamespace(**{**vars(plan), "max_piece_characters": most, "vocab_size": 288})
        file = train_vocabulary([f"{word} и {word}ю\n" * 50], [], own, SpecialTokens(), 1, tmp_path)
        import sentencepiece

        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
        lengths.append(max(len(model.id_to_piece(i)) for i in range(len(model))))
    assert lengths[0] <= 16 < lengths[1]

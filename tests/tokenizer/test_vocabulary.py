import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from errors import user_error
from sentencepiece import SentencePieceProcessor

from hpc_llm.settings import TokenizerSettings
from hpc_llm.tokenizer import SpecialTokens, export_fast, text_encoder, train_vocabulary
from hpc_llm.tokenizer.coder import frame_ids
from hpc_llm.tokenizer.encode import encode_shards, open_shards
from hpc_llm.tokenizer.sample import chunks_of, draw
from hpc_llm.tokenizer.specials import ONE_PIECE

Sample = dict[str, list[str]]
Settings = Callable[..., TokenizerSettings]


def pieces_of(model: Path) -> list[str]:
    processor = SentencePieceProcessor(model_file=str(model))
    return [processor.id_to_piece(i) for i in range(len(processor))]


def test_pieces(vocabulary: Path) -> None:
    pieces = pieces_of(vocabulary)
    assert len(pieces) == len(set(pieces)) == 1024
    assert pieces[:3] == ["<unk>", "<s>", "</s>"]
    assert {f"<0x{i:02X}>" for i in range(256)} <= set(pieces)
    words = [piece for piece in pieces[3:] if not piece.startswith("<0x")]
    for alone in (*"0123456789", "\n", "\t"):
        assert [piece for piece in words if alone in piece] == [alone]
    assert all("▁" not in piece.lstrip("▁") for piece in words)  # no piece crosses a word


def test_no_text_is_lost(vocabulary: Path, sample: Sample, nasty: list[str]) -> None:
    processor = SentencePieceProcessor(model_file=str(vocabulary))
    texts = [*sample["ru"], *sample["en"], *nasty]
    ids = processor.encode(texts)
    assert processor.decode(ids) == texts
    assert all(processor.unk_id() not in document for document in ids)


def test_equal_input_gives_equal_bytes(sample: Sample, settings: Settings, tmp_path: Path) -> None:
    models = [
        train_vocabulary(
            iter(sample["ru"]), sample["en"], settings(threads=threads), SpecialTokens(), 1, folder
        ).read_bytes()
        for threads, folder in ((1, tmp_path / "a"), (2, tmp_path / "b"), (2, tmp_path / "c"))
    ]
    assert models[0] == models[1] == models[2]


def test_the_largest_vocabulary(sample: Sample, settings: Settings, tmp_path: Path) -> None:
    def train(size: int) -> list[str]:
        plan = settings(vocab_size=size, source_share=0)
        return pieces_of(train_vocabulary(sample["ru"], [], plan, SpecialTokens(), 1, tmp_path))

    with user_error("tokenizer.vocab_size", value=65_536) as error:
        train(65_536)
    most = int(re.findall(r"tokenizer.vocab_size=(\d+)", error.value.fix)[0])
    assert f" {most} " in error.value.rule
    assert len(train(most)) == most
    with user_error("tokenizer.vocab_size", f" {most} ", value=most + 1):
        train(most + 1)


def test_a_vocabulary_too_small_for_its_letters(settings: Settings, tmp_path: Path) -> None:
    letters = " ".join(chr(0x4E00 + i) for i in range(400))
    with user_error("tokenizer.vocab_size", value=384) as error:
        train_vocabulary([letters], [], settings(vocab_size=384), SpecialTokens(), 1, tmp_path)
    assert re.search(r"\b6\d\d tokens", error.value.rule)


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text(texts: list[str], settings: Settings, tmp_path: Path) -> None:
    with user_error("tokenizer", "corpus.target"):
        train_vocabulary(texts, [], settings(), SpecialTokens(), 1, tmp_path)


def test_too_little_memory(
    sample: Sample, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "3")  # MiB: 78,643 characters of 40 bytes
    with user_error("tokenizer.max_characters", "tokenizer.max_characters=78643 "):
        train_vocabulary(sample["ru"], [], settings(), SpecialTokens(), 1, tmp_path)
    plan = settings(max_characters=50_000, source_share=0, vocab_size=600)
    assert train_vocabulary(sample["ru"], [], plan, SpecialTokens(), 1, tmp_path).exists()


@pytest.mark.parametrize(
    ("share", "has_latin", "has_cyrillic"), [(0, 0, 1), (0.5, 1, 1), (1, 1, 0)]
)
def test_source_share(
    share: float,
    has_latin: bool,
    has_cyrillic: bool,
    sample: Sample,
    settings: Settings,
    tmp_path: Path,
) -> None:
    plan = settings(source_share=share, max_characters=60_000, vocab_size=512)
    pieces = pieces_of(
        train_vocabulary(sample["ru"], sample["en"], plan, SpecialTokens(), 1, tmp_path)
    )
    assert any(re.fullmatch("▁?[a-z]{2,}", piece) for piece in pieces) == has_latin
    assert any(re.fullmatch("▁?[а-я]{2,}", piece) for piece in pieces) == has_cyrillic


@pytest.mark.parametrize(
    "specials",
    [
        SpecialTokens("<unk>", "<s>", "</s>", "<unk>"),
        SpecialTokens("<|eot|>", "<|eot|>", "<|eot|>"),
        SpecialTokens(None, None, "</s>", "<pad>", ("<|im_start|>", "<|im_end|>", "</s>")),
    ],
)
def test_special_strings_are_control_pieces(
    specials: SpecialTokens, sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    plan = settings(source_share=0, vocab_size=512)
    model = train_vocabulary(sample["ru"], [], plan, specials, 1, tmp_path)
    processor = SentencePieceProcessor(model_file=str(model))
    assert len(processor) == 512
    assert processor.id_to_piece(processor.unk_id()) == "<unk>"
    assert processor.id_to_piece(processor.eos_id()) == specials.eos
    for token in {specials.bos, specials.eos, specials.pad, *specials.additional} - {None}:
        assert processor.id_to_piece(processor.piece_to_id(token)) == token
        written = processor.encode(f"a {token} b")
        assert processor.piece_to_id(token) not in written
        assert processor.decode(written) == f"a {token} b"


TEXTS = ["Абзац один.\n\nАбзац два." * 900, "слово " * 5000, "x" * 9000, "a  " * 3000, "", "short"]


@pytest.mark.parametrize("text", TEXTS)
def test_chunks_are_the_text(text: str) -> None:
    chunks = list(chunks_of(text))
    assert "".join(chunks) == text
    assert all(0 < len(chunk) <= 4096 for chunk in chunks)
    if "\n" in text:
        assert all(chunk.endswith("\n") for chunk in chunks[:-1])
    elif " " in text:
        assert all(chunk[0] == " " and chunk[-1] != " " for chunk in chunks[1:-1])


def test_chunks_have_the_ids_of_the_text(vocabulary: Path, sample: Sample) -> None:
    processor = SentencePieceProcessor(model_file=str(vocabulary))
    for glue in ("\n", " ", "  "):
        text = glue.join(sample["ru"][:30])
        ids = processor.encode(list(chunks_of(text)))
        assert list(chain(*ids)) == processor.encode(text)


def test_draw_takes_from_everywhere() -> None:
    texts = [f"{i:06d} " + "x" * 93 for i in range(2000)]
    drawn = draw(iter(texts), 20_000, seed=1)
    places = [int(text[:6]) for text in drawn]
    assert len(drawn) == 200
    assert places == sorted(set(places))
    assert 700 < sum(places) / len(places) < 1300  # the head alone has a mean of 100
    assert drawn == draw(texts, 20_000, seed=1)
    assert drawn != draw(texts, 20_000, seed=2)
    assert draw(texts, 10**9, seed=1) == texts
    assert draw(texts, 0, seed=1) == []


TEXT = "a\nb\t7  на\n\nа,е 0    1 <0x0A> ▅"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("token", ["\n", "\t", "<0x0A>", "7", "▁", " ", "\n\n", "    ", "", "\0"])
def test_a_special_token_that_is_text_is_the_piece_that_is_there(
    token: str, kind: str, sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    """As an added token, and (where it is one piece) in a role."""
    plan = settings(model_type=kind, source_share=0, vocab_size=420)
    piece = token.replace(" ", "▁")
    candidates = [SpecialTokens(additional=("<|a|>", token)), SpecialTokens(unk=token)]
    if ONE_PIECE.fullmatch(piece):
        candidates += [SpecialTokens(eos=piece), SpecialTokens(bos=piece, pad=piece)]
    for specials in candidates:
        model = train_vocabulary(sample["ru"][:12], [], plan, specials, 1, tmp_path)
        processor = SentencePieceProcessor(model_file=str(model))
        pieces = pieces_of(model)
        assert len(set(pieces)) == 420
        assert processor.decode(processor.encode(TEXT)) == TEXT
        bos, eos = frame_ids(processor)
        assert (pieces[bos], pieces[eos]) == (specials.bos, specials.eos)
        fast = export_fast(model, None, specials, 512, tmp_path / "fast")
        assert len(fast) == 420
        assert (fast.bos_token_id, fast.eos_token_id) == (bos, eos)
        assert text_encoder(fast)([TEXT]) == [processor.encode(TEXT)]


@pytest.mark.parametrize("char", ["\u2585", "\u2581", "\u2584", "\ufffd", "\ue000", "😀"])
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_no_character_hides_the_text_around_it(
    char: str, kind: str, sample: Sample, settings: Settings, tmp_path: Path
) -> None:
    """The letter thorn occurs only in chunks that hold `char`, as every chunk does at last."""
    plan = settings(model_type=kind, source_share=0, vocab_size=420)
    for plain in (sample["ru"][:12], []):
        texts = [*plain, *(f"{text} {char} þorn" for text in sample["ru"][:12])]
        model = train_vocabulary(texts, [], plan, SpecialTokens(), 1, tmp_path)
        assert any("þ" in piece for piece in pieces_of(model))
        text = f"а {char}{char} б {char}▁▅ ▁▁"
        fast = export_fast(model, None, SpecialTokens(), 512, tmp_path / "fast")
        encode_shards([text], model, tmp_path / "shards")
        shards = open_shards(tmp_path / "shards")
        assert shards[0][1:-1].tolist() == text_encoder(fast)([text])[0]
        assert fast.decode(text_encoder(fast)([text])[0]) == text

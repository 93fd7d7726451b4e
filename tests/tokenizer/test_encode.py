from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from errors import user_error
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2

from hpc_llm.corpus.indexed import read_indexed
from hpc_llm.settings import TokenizerSettings
from hpc_llm.tokenizer import (
    SpecialTokens,
    encode_shards,
    export_fast,
    open_shards,
    train_vocabulary,
)

Sample = dict[str, list[str]]


def entries(prefix: Path) -> list[list[int]]:
    dataset = open_shards(prefix)
    return [dataset[i].tolist() for i in range(len(dataset))]


def test_shards_hold_the_documents(vocabulary: Path, sample: Sample, tmp_path: Path) -> None:
    texts = [*sample["ru"] * 14, ""]  # more than one batch
    counts = encode_shards(iter(texts), vocabulary, tmp_path / "deep" / "train")
    processor = SentencePieceProcessor(model_file=str(vocabulary))
    expected = [[1, *ids, 2] for ids in processor.encode(texts)]
    assert entries(tmp_path / "deep" / "train") == expected
    assert counts.documents == len(texts) == 2241
    assert counts.tokens == sum(map(len, expected))
    assert counts.bytes == sum(len(text.encode()) for text in texts)
    sizes = np.load(tmp_path / "deep" / "train.bytes.npy")
    assert sizes.dtype == np.int32
    assert sizes.tolist() == [len(text.encode()) for text in texts]
    assert open_shards(tmp_path / "deep" / "train").dtype == np.uint16
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == [
        *("train.bin", "train.bytes.npy", "train.idx", "train.json"),
    ]


def test_the_text_of_shards_is_read_again(vocabulary: Path, sample: Sample, tmp_path: Path) -> None:
    """The inverse, by a reader of its own: DeepSpeed writes the files, tokenizers decodes them."""
    export_fast(vocabulary, None, SpecialTokens(), None, tmp_path / "fast")
    encode_shards(sample["ru"], vocabulary, tmp_path / "train")
    found = list(read_indexed(tmp_path / "train.idx", str(tmp_path / "fast")))
    assert found == sample["ru"]


def test_old_shards_are_replaced(vocabulary: Path, sample: Sample, tmp_path: Path) -> None:
    for texts in (sample["ru"], sample["en"][:3]):
        encode_shards(texts, vocabulary, tmp_path / "train")
        assert len(entries(tmp_path / "train")) == len(texts)
    with user_error(str(tmp_path / "train")):
        encode_shards([], vocabulary, tmp_path / "train")
    assert len(entries(tmp_path / "train")) == 3
    assert len(list(tmp_path.iterdir())) == 4


def test_nothing_is_left_of_a_failure(vocabulary: Path, tmp_path: Path) -> None:
    def texts() -> Any:
        yield "first"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        encode_shards(texts(), vocabulary, tmp_path / "train")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match=r"train\.idx: "):
        open_shards(tmp_path / "train")


def test_nothing_is_printed(
    vocabulary: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encode_shards(["first"], vocabulary, tmp_path / "a")  # the first import may warn
    capfd.readouterr()
    encode_shards(["text"], vocabulary, tmp_path / "b")
    assert len(open_shards(tmp_path / "b")) == 1
    assert capfd.readouterr() == ("", "")


def test_a_long_document_is_encoded_exactly(
    vocabulary: Path, sample: Sample, tmp_path: Path
) -> None:
    """Sums of scores in 32 bits would go wrong here; the fast tokenizer's 64 bits do not."""
    text = " ".join(sample["ru"] * 2)
    encode_shards([text], vocabulary, tmp_path / "train")
    fast = export_fast(vocabulary, None, SpecialTokens(), 10**9, tmp_path / "fast")
    ids = fast(text, add_special_tokens=False)["input_ids"]
    assert entries(tmp_path / "train") == [[1, *ids, 2]]


def test_a_large_vocabulary_takes_four_bytes(vocabulary: Path, tmp_path: Path) -> None:
    proto = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.read_bytes())
    for i in range(70_000):
        proto.pieces.add(piece=f"{i:x}ƕ", score=-1000.0 - i)
    proto.pieces.add(piece="ƒ", score=-1.0)
    model = tmp_path / "large.model"
    model.write_bytes(proto.SerializeToString())
    encode_shards(["ƒ"], model, tmp_path / "train")
    dataset = open_shards(tmp_path / "train")
    assert dataset.dtype == np.int32
    assert dataset[0].tolist() == [1, 71_024, 2]


def test_without_bos_a_document_begins_with_eos(
    sample: Sample, settings: Callable[..., TokenizerSettings], tmp_path: Path
) -> None:
    specials = SpecialTokens("<|end|>", "<|end|>", "<|end|>")
    model = train_vocabulary(sample["ru"], [], settings(vocab_size=512), specials, 1, tmp_path)
    encode_shards(["text"], model, tmp_path / "train")
    [ids] = entries(tmp_path / "train")
    assert (ids[0], ids[-1]) == (1, 1)
    assert SentencePieceProcessor(model_file=str(model)).id_to_piece(1) == "<|end|>"

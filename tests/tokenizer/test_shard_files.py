"""Truncated and changed shards, and those of another vocabulary, are refused with their path."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.settings import TokenizerSettings
from hpc_llm.tokenizer import SpecialTokens, encode_shards, train_vocabulary
from hpc_llm.tokenizer.shard_files import check_shards

Sample = dict[str, list[str]]


@pytest.fixture
def prefix(vocabulary: Path, sample: Sample, tmp_path: Path) -> Path:
    encode_shards(sample["ru"], vocabulary, tmp_path / "shards" / "target")
    return tmp_path / "shards" / "target"


def test_whole_shards_have_a_fingerprint_that_copies_share(
    vocabulary: Path, sample: Sample, prefix: Path
) -> None:
    found = check_shards(prefix, vocabulary, 1024)
    shutil.copytree(prefix.parent, prefix.parent.parent / "copy")
    assert check_shards(prefix.parent.parent / "copy" / "target", vocabulary, 1024) == found
    encode_shards(sample["ru"], vocabulary, prefix)
    assert check_shards(prefix, vocabulary, 1024) == found
    encode_shards(sample["ru"][1:], vocabulary, prefix)
    assert check_shards(prefix, vocabulary, 1024) != found


@pytest.mark.parametrize("ending", [".bin", ".idx", ".bytes.npy"])
def test_truncated_and_changed_files_are_reported(
    vocabulary: Path, prefix: Path, ending: str
) -> None:
    path = prefix.with_name(prefix.name + ending)
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with user_error(str(path), f"{len(content) - 2:,} bytes", f"{len(content):,}"):
        check_shards(prefix, vocabulary, 1024)
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1, content[-1]]))
    with user_error(str(prefix), "changed", str(prefix.parent)):
        check_shards(prefix, vocabulary, 1024)
    path.unlink()
    with user_error(str(path), "0 bytes", f"{len(content):,}"):
        check_shards(prefix, vocabulary, 1024)


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]"])
def test_shards_without_their_description_are_refused(
    vocabulary: Path, prefix: Path, content: str | None
) -> None:
    path = prefix.with_name("target.json")
    path.unlink() if content is None else path.write_text(content)
    with user_error(str(prefix), "incomplete", str(prefix.parent)):
        check_shards(prefix, vocabulary, 1024)


def test_shards_of_another_vocabulary_are_refused(
    vocabulary: Path,
    sample: Sample,
    prefix: Path,
    settings: Callable[..., TokenizerSettings],
    tmp_path: Path,
) -> None:
    other = train_vocabulary(
        sample["ru"], [], settings(vocab_size=900), SpecialTokens(), 1, tmp_path
    )
    with user_error(str(prefix), "1,024", other):
        check_shards(prefix, other, 1024)
    with user_error(str(prefix), "1,024", "1,000", "transplant"):
        check_shards(prefix, vocabulary, 1000)
    assert check_shards(prefix, vocabulary, 1025)

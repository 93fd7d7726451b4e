"""Texts of equal content in several languages."""

import json
from pathlib import Path

import pytest
from errors import user_error

from hpc_llm.corpus.parallel import read_parallel


@pytest.fixture
def files(tmp_path):
    pairs = [{"en": "one\ntwo", "ru": "раз\nдва"}, {"en": "three", "ru": "три"}]
    both = tmp_path / "pairs.jsonl"
    both.write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    lines = tmp_path / "th.txt"
    lines.write_text("หนึ่ง\nสอง\n", encoding="utf-8")
    own = tmp_path / "de.jsonl"
    own.write_text('{"text": "eins"}\n{"text": "zwei"}\n{"text": "drei"}\n', encoding="utf-8")
    return {"both": str(both), "lines": str(lines), "own": str(own)}


def test_a_field_named_like_the_language_and_lines_of_plain_text(files, default_config):
    entries = {"en": files["both"], "ru": files["both"], "th": files["lines"]}
    found = read_parallel("tokenizer.parity", entries, default_config.corpus)
    assert found["en"] == ["one\ntwo", "three"]
    assert found["ru"] == ["раз\nдва", "три"]
    assert found["th"] == ["หนึ่ง", "สอง"]


def test_the_usual_field_and_unequal_numbers(files, default_config):
    entries = {"en": files["both"], "de": files["own"]}
    with user_error("tokenizer.parity", "en 2", "de 3"):
        read_parallel("tokenizer.parity", entries, default_config.corpus)


def test_a_missing_file(files, default_config):
    with user_error("tokenizer.parity.ru", value=Path("missing.jsonl")):
        read_parallel(
            "tokenizer.parity", {"en": files["both"], "ru": "missing.jsonl"}, default_config.corpus
        )

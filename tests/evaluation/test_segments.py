"""Held-out text: documents up to a limit, or segments of few and long ones."""

import pytest

from hpc_llm.evaluation.segments import FEW_DOCUMENTS, select

LINES = "".join(f"Строка {i} с текстом и пробелами.\n" for i in range(2000))


def size(texts):
    return sum(len(text.encode()) for text in texts)


def test_documents_up_to_the_limit():
    texts = [f"документ {i}" for i in range(100)]
    found = select(texts, size(texts[:40]))
    assert found.texts == texts[:40]
    assert found.note == ""
    assert select(iter(()), 100).texts == []


@pytest.mark.parametrize("text", [LINES, LINES.replace("\n", " "), "ж" * 40_000, "漢字" * 30_000])
@pytest.mark.parametrize("limit", [2000, 2001, 70_000])
def test_of_a_long_document_its_beginning(text, limit):
    found = select([text, "another"], limit)
    assert limit - 100 < size(found.texts) <= limit
    assert text.startswith("".join(found.texts))
    assert 10 <= len(found.texts) <= 12
    assert f"{size([text]):,}" in found.note
    assert f"{size(found.texts):,}" in found.note


@pytest.mark.parametrize("count", range(1, 7))
def test_few_documents_are_cut(count):
    texts = [LINES[1000 * i : 1000 * i + 900].strip() for i in range(count)]
    found = select(texts, 10**6)
    assert "".join(found.texts) == "".join(texts)
    assert (len(found.texts) >= 8) == (count < FEW_DOCUMENTS)
    assert (found.texts == texts) == (count >= FEW_DOCUMENTS) == (found.note == "")


def test_a_short_document_stays_whole():
    assert select(["короткий текст"], 10**6).texts == ["короткий текст"]
    assert select(["короткий текст"], 10**6).note == ""

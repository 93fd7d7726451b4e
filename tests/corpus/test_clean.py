import pytest

from hpc_llm.corpus import clean


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("page one\fpage two", "page one\npage two"),
        ("\ufeffstart", "start"),
        ("bell\x07 and null\x00", "bell and null"),
        ("\n\n text \n", "text"),
        ("half \ud83d pair", "half  pair"),
        ("ёж\x85ёлка", "ёж\nёлка"),
    ],
)
def test_invisible_characters_are_removed(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected
    assert clean(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a  b",
        "a\tb",
        "def f():\n    return 1",
        "e\u0301",
        "👨‍👩‍👧",
        "a \n b",
        "a\u00a0b",
        "«ёлка» — да",
    ],
)
def test_visible_text_is_unchanged(text: str) -> None:
    assert clean(text) == text

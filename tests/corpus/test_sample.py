import json
import re
from collections.abc import Callable
from importlib.resources import files

import pytest

from hpc_llm.corpus import clean, read_documents
from hpc_llm.settings import CorpusSettings


@pytest.mark.parametrize(("language", "letters"), [("en", "a-z"), ("ru", "а-яё")])
def test_the_sample_is_text_of_its_language(
    language: str, letters: str, settings: Callable[..., CorpusSettings]
) -> None:
    texts = list(read_documents(f"sample:{language}", settings()))
    assert len(set(texts)) == 160
    joined = "".join(texts)
    assert len(re.findall(f"[{letters}]", joined.lower())) > 0.75 * len(joined)
    for text in texts:
        assert clean(text) == text
        assert 500 <= len(text) <= 900
        assert not re.search("[а-яА-ЯёЁ][a-zA-Z]|[a-zA-Z][а-яА-ЯёЁ]|  ", text)


def numbers_of(text: str) -> set[str]:
    """Return the numbers in `text`, thousands written without a separator."""
    return set(re.findall("[0-9]+", re.sub("(?<=[0-9])[ ,.](?=[0-9])", "", text)))


def test_the_articles_are_parallel() -> None:
    lines = (files("hpc_llm.corpus") / "sample" / "articles.jsonl").read_text("utf-8").splitlines()
    articles = [json.loads(line) for line in lines]
    assert len({article["id"] for article in articles}) == 160
    same = different = 0
    for article in articles:
        assert set(article) == {"id", "subject", "title_en", "title_ru", "en", "ru"}
        english, russian = (article["en"], article["ru"])
        assert english.count("\n\n") == russian.count("\n\n"), article["id"]
        same += len(numbers_of(english) & numbers_of(russian))
        different += len(numbers_of(english) ^ numbers_of(russian))
    assert different < 0.05 * same  # a few are written as words in one of the languages

"""Quality rules: each rule by itself, C4 and Gopher against datatrove, reports, wrong settings."""

import gzip
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from errors import user_error
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hpc_llm import config
from hpc_llm.corpus import build_corpus, load_texts
from hpc_llm.corpus.counting import counting
from hpc_llm.corpus.rules import build_filter, rule_sets
from hpc_llm.corpus.words import count_sentences, words_of
from hpc_llm.settings import CorpusSettings
from hpc_llm.settings.cleaning import C4Settings, GopherSettings, LanguageSettings

Settings = Callable[..., CorpusSettings]
SENTENCE = "Это обычное предложение о доме."
PAGE = "\n".join([SENTENCE] * 5)
RUSSIAN = "Он сказал, что это был не дом, а сад, и что из окна видна река за лесом. "
PUBLISHED = {"terminal_marks": ".?!\"'", "ellipsis_lines": False, "html_lines": 0}
YESTERDAY = "c7b2823997959a838194dc8b1e73943f29f3a8d4010032cb179743921ca65fa4"


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("Строка без точки в конце", "terminal_mark"),
        ("Две строки.", "few_words"),
        ("Включите JavaScript в настройках браузера.", "javascript"),
        ("Мы собираем файлы cookie для вашего удобства.", "policy"),
        ("Read our Privacy Policy before you go on.", "policy"),
        (f"Длинное слово {'а' * 1001} в строке.", "long_word"),
    ],
)
def test_c4_removes_lines(line: str, rule: str, settings: Settings) -> None:
    found = build_filter(settings(clean="c4"))(f"{PAGE}\n  {line}\n\n{SENTENCE}")
    assert found.dropped is None
    assert found.text == f"{PAGE}\n{SENTENCE}"
    assert list(found.removed) == [(rule, line)]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"{PAGE}\nHere Lorem Ipsum dolor sit amet.", "lorem_ipsum"),
        (f"{PAGE}\nfunction f() {{ return 1 }} и всё.", "brace"),
        (f'{PAGE}\n<div class="a">\n<p>Текст</p>\n&nbsp;', "html"),
        ("\n".join([SENTENCE] * 4), "few_sentences"),
        (f"{SENTENCE} " * 3 + "Ещё одно!", "few_sentences"),
    ],
)
def test_c4_drops_pages(text: str, rule: str, settings: Settings) -> None:
    assert build_filter(settings(clean="c4"))(text).dropped == rule


@pytest.mark.parametrize(
    ("line", "change", "kept"),
    [
        ("Строка без точки в конце", {"terminal_marks": None}, True),
        ("Он подумал и замолчал...", {}, True),
        ("Он подумал и замолчал...", {"ellipsis_lines": False}, False),
        ("Он подумал и замолчал…", {}, True),
        ("— Да, — сказал он тихо:", {}, True),
        ("Две строки.", {"min_words_in_line": 0}, True),
        (f"Слово {'а' * 1001} в строке.", {"longest_word": 0}, True),
        ("Нужен JavaScript для этой страницы.", {"javascript": False}, True),
        ("Прочтите terms of use до конца.", {"policies": False}, True),
        ("Тут стоит { скобка в тексте.", {"braces": False}, True),
        ("Тут стоит lorem ipsum в тексте.", {"lorem_ipsum": False}, True),
    ],
)
def test_c4_rules_have_settings(
    line: str, change: dict[str, Any], kept: bool, settings: Settings
) -> None:
    found = build_filter(settings(clean="c4", c4=C4Settings(**change)))(f"{PAGE}\n{line}")
    assert found.dropped is None
    assert found.text.endswith(line) == kept


def test_c4_citations_and_share(settings: Settings) -> None:
    text = f"{PAGE}\nСлово[1] и дело[citation needed] здесь[23].\n" + "меню " * 99
    found = build_filter(settings(clean="c4"))(text)
    assert found.text.endswith("\nСлово и дело здесь.")
    kept = build_filter(settings(clean="c4", c4=C4Settings(citations=False, min_share=0.1)))(text)
    assert kept.text.endswith("здесь[23].")
    strict = build_filter(settings(clean="c4", c4=C4Settings(min_share=0.9)))
    assert strict(text).dropped == "little_left"


@pytest.mark.parametrize(("allowed", "dropped"), [(0, "bad_words"), (100, None)])
def test_bad_words(allowed: float, dropped: str | None, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "bad.txt").write_text("Дурак\n\nплохое слово\n")
    c4 = C4Settings(bad_words=str(tmp_path / "bad.txt"), bad_words_per_1000=allowed)
    rules = build_filter(settings(clean="c4", c4=c4))
    assert rules(f"{PAGE}\nОн сам ДУРАК, сказал сосед.").dropped == dropped
    assert rules(f"{PAGE}\nЭто плохое слово в тексте.").dropped == dropped
    assert rules(f"{PAGE}\nПридурак и дураки стоят у дома.").dropped is None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (RUSSIAN * 10, None),
        (RUSSIAN * 2, "few_words"),
        ("", "few_words"),
        (RUSSIAN * 6000, "many_words"),
        (RUSSIAN + "а и о " * 99, "short_words"),
        (RUSSIAN + "достопримечательность " * 99, "long_words"),
        (RUSSIAN * 10 + "#" * 30, "hashes"),
        (RUSSIAN * 10 + "… ... " * 10, "ellipses"),
        ("\n".join(f"- {RUSSIAN}" for _ in range(10)), "bullets"),
        ("\n".join([f"{RUSSIAN.strip()}.."] * 4 + [RUSSIAN] * 6), "ellipsis_lines"),
        (RUSSIAN * 10 + "12345 " * 99, "letters"),
        ("слово дело дом сад река лес поле море небо земля " * 10, "stop_words"),
    ],
)
def test_gopher_drops_documents(text: str, rule: str | None, settings: Settings) -> None:
    plan = settings(clean="gopher", language=LanguageSettings(keep=["ru"], script_share=0))
    assert build_filter(plan)(text).dropped == rule


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("Русский текст, в котором есть English word.", None),
        ("Mostly English text и слово.", "script"),
        ("123 + 456", "script"),
    ],
)
def test_language_by_script(text: str, dropped: str | None, settings: Settings) -> None:
    for language in (LanguageSettings(keep=["ru"]), LanguageSettings(scripts=["Cyrillic"])):
        assert build_filter(settings(language=language))(text).dropped == dropped
    both = build_filter(settings(language=LanguageSettings(keep=["ru", "en"])))
    assert both(text).dropped == ("script" if text[0] == "1" else None)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("без точки", 1),
        ("Раз. Два! Три? Четыре… Пять", 5),
        ("«Иди!» — сказал он. Все ушли.", 2),
        ("А. С. Пушкин жил, т. е. писал, в Москве.", 1),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert count_sentences(text) == count


@cache
def lenient() -> list[Any]:
    """All sets of rules, with bounds that short texts can keep."""
    words = ["corpus=web", "corpus.language.keep=[ru]", "corpus.language.script_share=0"]
    plan = config.typed(config.compose([*words, "corpus.gopher.words=[1,99]"])).corpus
    return [build_filter(replace(plan, clean=name)) for name in rule_sets()]


@given(st.text(alphabet=st.sampled_from("аБ1 .!?…«»\"'\n-#•{[]е́"), max_size=300))
@examples(max_examples=50, deadline=None, derandomize=True)
def test_any_text_has_an_outcome(text: str) -> None:
    for rules in lenient():
        found = rules(text)
        assert rules(text) == found
        assert len(found.text) <= len(text)
        assert found.dropped is None or found.text == text


def passages(shared: Path, count: int) -> list[str]:
    """English passages, some spoilt with what the rules look for."""
    with gzip.open(shared / "data/en/en_stories_books.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(count), file, strict=False)]
    random.seed(0)
    spoilt = (
        *("Please enable JavaScript now.", "Lorem ipsum dolor sit amet.", "See { here } now."),
        *(
            "We use cookies on this site.",
            "Well, wait for it...",
            "It was so [1] and [edit] ended.",
        ),
        *("Home | News | Contact", "Two words.", f"A {'b' * 1001} word.", ""),
    )
    for place in range(0, len(texts), 2):
        lines = texts[place].split("\n")
        lines.insert(random.randrange(len(lines) + 1), random.choice(spoilt))
        texts[place] = "\n".join(lines)
    return [text[: random.randrange(50, 3000)] for text in texts]


def test_c4_equals_datatrove(shared: Path, settings: Settings, monkeypatch: Any) -> None:
    """Documents and text, with the published settings; sentences are split by one function."""
    c4_filters = pytest.importorskip("datatrove.pipeline.filters.c4_filters")
    from datatrove.data import Document

    def split(text: str, language: str) -> list[str]:
        return [text] * count_sentences(text)

    monkeypatch.setattr(c4_filters, "split_into_sentences", split)
    monkeypatch.setattr(c4_filters, "END_PUNCTUATION", tuple(PUBLISHED["terminal_marks"]))
    theirs = c4_filters.C4QualityFilter()
    ours = build_filter(settings(clean="c4", c4=C4Settings(**PUBLISHED)))
    dropped = 0
    for text in passages(shared, 2000):
        document = Document(text=text, id="0")
        kept = theirs.filter(document) is True
        found = ours(text)
        assert (found.dropped is None) == kept, text
        if kept:
            assert found.text == document.text
        dropped += not kept
    assert 200 < dropped < 1800


def test_gopher_equals_datatrove(shared: Path, settings: Settings, monkeypatch: Any) -> None:
    name = "datatrove.pipeline.filters.gopher_quality_filter"
    gopher = pytest.importorskip(name)
    from datatrove.data import Document

    monkeypatch.setattr(gopher, "split_into_words", lambda text, language: words_of(text.lower()))
    plan = settings(clean="gopher", language=LanguageSettings(keep=["en"], script_share=0))
    ours, theirs = build_filter(plan), gopher.GopherQualityFilter()
    results = []
    for text in passages(shared, 1000):
        result = theirs.filter(Document(text=text, id="0"))
        assert (ours(text).dropped is None) == (result is True), text
        results.append(result)
    assert 20 < results.count(True) < 980


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)


def test_report_and_samples(tmp_path: Path, settings: Settings) -> None:
    good = [f"{PAGE}\nДокумент номер {i} стоит здесь.\nменю {i}" for i in range(60)]
    bad = [f"{PAGE}\nLorem ipsum {i} dolor sit amet." for i in range(30)]
    texts = [text for pair in zip(good, bad, strict=False) for text in pair] + good[30:]
    reports = []
    for name, order in (("a", texts), ("b", texts[::-1])):
        entry = write(tmp_path / "in.jsonl", order)
        counts = build_corpus([entry], "corpus.target", settings(clean="c4"), 1, tmp_path / name)
        assert (counts.cleaned, counts.documents) == (30, 60)
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["files"] == {entry: {"documents": 90, "lorem_ipsum": 30}}
        assert (report["read"]["documents"], report["kept"]["documents"]) == (90, 60)
        assert report["kept"]["bytes"] == report["after_rules"]["bytes"] == counts.bytes
        gone = sum(len(text.encode()) for text in bad)
        assert report["rules"]["lorem_ipsum"]["bytes"] == gone
        assert report["rules"]["terminal_mark"] | {"bytes_share": 0} == {
            "documents": 0,
            "lines": 60,
            "bytes": sum(len(f"меню {i}".encode()) for i in range(60)),
            "bytes_share": 0,
        }
        samples = load_texts(tmp_path / name / "samples/lorem_ipsum.jsonl")
        assert len(set(samples)) == 20
        assert set(samples) < set(bad)
        reports.append((report["rules"], samples))
    assert reports[0] == reports[1]
    kept = (tmp_path / "a" / "train.jsonl").read_text()
    assert "меню" not in kept
    assert "ipsum" not in kept


def test_without_rules_the_files_are_those_of_before(tmp_path: Path) -> None:
    plan = config.typed(config.compose(["corpus=sample"])).corpus
    digest = sha256()
    for name in ("target", "source"):
        key, entries = plan.entries(name)
        build_corpus(entries, key, plan, 1, tmp_path / name)
        for path in sorted((tmp_path / name).iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest() == YESTERDAY


def test_rules_apply_to_the_named_texts(tmp_path: Path, settings: Settings) -> None:
    entry = write(tmp_path / "in.jsonl", [f"{PAGE}\nДом {i} тут.\nstroka" for i in range(9)])
    for cleaned, left in ((["target"], True), (["source"], False)):
        out = tmp_path / cleaned[0]
        plan = settings(clean="c4", cleaned=cleaned, source=[entry])
        build_corpus([entry], "corpus.source", plan, 1, out)
        assert ("stroka" in (out / "test.jsonl").read_text()) == left
        assert (out / "report.json").exists() != left


def test_rules_that_drop_nearly_all(tmp_path: Path, settings: Settings) -> None:
    entry = write(tmp_path / "in.jsonl", [f"стих без точки {i}" for i in range(99)] + [PAGE])
    with user_error("corpus.clean", "few_sentences", "99.0%", "corpus.clean=none", value="c4"):
        build_corpus([entry], "corpus.target", settings(clean="c4"), 1, tmp_path / "out")
    plan = settings(language=LanguageSettings(keep=["en"]))
    with user_error("corpus.language.keep", "script", "100.0%", value="[en]"):
        build_corpus([entry], "corpus.target", plan, 1, tmp_path / "out2")


@pytest.mark.parametrize(
    ("change", "key", "mention"),
    [
        ({"clean": "c5"}, "corpus.clean", "gopher"),
        ({"clean": "c4", "c4": {"bad_words": "/none"}}, "corpus.c4.bad_words", "text file"),
        ({"clean": "c4", "c4": {"bad_words": "/dev/null"}}, "corpus.c4.bad_words", "file"),
        ({"clean": "c4", "c4": {"min_share": 2}}, "corpus.c4.min_share", "at most 1"),
        ({"language": {"keep": ["xx"]}}, "corpus.language.keep", "ru"),
        ({"language": {"scripts": ["Klingon"]}}, "corpus.language.scripts", "Cyrillic"),
        ({"clean": "gopher"}, "corpus.language.keep", "corpus.gopher.stop_words=0"),
        (
            {"clean": "gopher", "language": {"keep": ["ka"]}},
            "corpus.language.keep",
            "corpus.gopher.stop_words_file",
        ),
        (
            {"clean": "gopher", "gopher": {"stop_words_file": "/none"}},
            "corpus.gopher.stop_words_file",
            "text file",
        ),
        ({"gopher": {"words": [9]}}, "corpus.gopher.words", "two numbers"),
        ({"gopher": {"mean_word": [9, 3]}}, "corpus.gopher.mean_word", "lower"),
        ({"cleaned": ["books"]}, "corpus.cleaned", "target"),
        ({"cleaned": [], "clean": "c4"}, "corpus.cleaned", "target"),
        ({"cleaned": ["source"], "source": []}, "corpus.cleaned", "corpus.source"),
    ],
)
def test_wrong_settings(change: dict[str, Any], key: str, mention: str, settings: Settings) -> None:
    kinds = {"c4": C4Settings, "gopher": GopherSettings, "language": LanguageSettings}
    values = {name: kinds[name](**v) if name in kinds else v for name, v in change.items()}
    with user_error(key, mention):
        build_filter(settings(**values))


def test_wrong_settings_end_before_any_text_is_read() -> None:
    with user_error("corpus.clean", "c4, gopher, none", value="c5"):
        config.typed(config.compose(["corpus=sample", "corpus.clean=c5"]))


def test_the_rules_of_the_page_are_a_plugin(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# hpc_llm/corpus/rules/repeats.py\n.*?)```", page, re.S)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "repeats.py").write_text(code)
    monkeypatch.setenv("HPC_LLM_PLUGINS", str(tmp_path))
    assert rule_sets() == ["none", "c4", "gopher", "repeats"]
    rules = build_filter(settings(clean="repeats"))
    assert rules("дом\nсад\nдом").dropped == "repeated_line"
    assert rules("дом\n\n\nсад").dropped is None
    assert counting(settings(clean="repeats"))["code"]


def test_only_settings_that_count_are_in_the_fingerprint(
    tmp_path: Path, settings: Settings
) -> None:
    (tmp_path / "bad.txt").write_text("дурак")
    c4 = C4Settings(bad_words=str(tmp_path / "bad.txt"))
    assert counting(settings(c4=c4)) == {}
    before = counting(settings(clean="c4", c4=c4))
    assert counting(settings(clean="c4", c4=c4, gopher=GopherSettings(stop_words=9))) == before
    (tmp_path / "bad.txt").write_text("болван")
    assert counting(settings(clean="c4", c4=c4)) != before

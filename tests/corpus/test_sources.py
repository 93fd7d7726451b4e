"""Sources of a corpus: their settings, shares, languages and held-out documents."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from errors import user_error

from hpc_llm.corpus import build_corpus, load_texts
from hpc_llm.settings import SourceSettings
from hpc_llm.settings.mixture import Mixture, check_replay
from hpc_llm.settings.sources import source_shares

LLAMA = {
    "commoncrawl": 67.0,
    "c4": 15.0,
    "github": 4.5,
    "wikipedia": 4.5,
    "books": 4.5,
    "arxiv": 2.5,
    "stackexchange": 2.0,
}
"""Sampling proportions in percent, Touvron et al. 2023 (arXiv 2302.13971), table 1."""


def source(language: str = "ru", **changes: Any) -> SourceSettings:
    return SourceSettings(files=["sample:ru"], language=language, **changes)


def test_shares_of_all_sources_are_percentages_or_fractions() -> None:
    sources = {name: source(share=share) for name, share in LLAMA.items()}
    found = source_shares(sources, 1.0, {})
    assert found == pytest.approx({name: share / 100 for name, share in LLAMA.items()})
    assert list(found) == list(LLAMA)


def test_sources_without_share_divide_the_rest_by_size_and_repeat() -> None:
    sources = {"web": source(), "wiki": source(repeat=3), "en": source("en", share=0.2)}
    found = source_shares(sources, 1.0, {"web": 700, "wiki": 100})
    assert found == pytest.approx({"web": 0.56, "wiki": 0.24, "en": 0.2})


def test_temperature_raises_small_languages_and_keeps_proportions_within_one() -> None:
    """The formula of XLM-R: q_l = p_l^alpha / sum p^alpha, alpha = 1 / T."""
    sources = {"web": source(), "books": source(), "kk": source("kk")}
    sizes = {"web": 6000, "books": 3000, "kk": 100}
    found = source_shares(sources, 1 / 0.3, sizes)
    russian, kazakh = (9000 / 9100) ** 0.3, (100 / 9100) ** 0.3
    assert found["kk"] == pytest.approx(kazakh / (russian + kazakh))
    assert found["web"] == pytest.approx(2 * found["books"])
    assert source_shares(sources, 1.0, sizes)["kk"] == pytest.approx(100 / 9100)


def test_roles_follow_the_languages(settings: Any) -> None:
    sources = {"web": source(), "en": source("en"), "kk": source("kk"), "code": source("code")}
    corpus = settings(sources=sources, source_languages=["en", "code"], texts={"a": ["b"]})
    assert corpus.texts_in("target") == ["web", "kk"]
    assert corpus.texts_in("source") == ["en", "code"]
    assert corpus.evaluated == list(sources)
    assert corpus.names == [*sources, "a"]
    assert corpus.entries("kk") == ("corpus.sources.kk.files", ["sample:ru"])


def test_target_and_source_in_a_stage_stand_for_their_sources(settings: Any) -> None:
    sources = {"web": source(), "wiki": source(repeat=2), "en": source("en", share=0.1)}
    corpus = settings(sources=sources, source_languages=["en"], texts={"chat": ["b"]})
    sizes = {"web": 300, "wiki": 150, "en": 5}
    parts = {"target": 0.5, "source": 0.2, "chat": 0.3}
    found = Mixture(corpus=corpus, parts=parts).shares(sizes.__getitem__)
    assert found == pytest.approx({"web": 0.25, "wiki": 0.25, "en": 0.2, "chat": 0.3})
    own = Mixture(corpus=corpus, parts=None).shares(sizes.__getitem__)
    assert own == pytest.approx({"web": 0.45, "wiki": 0.45, "en": 0.1})


def test_without_sources_a_mixture_is_what_it_was(settings: Any) -> None:
    parts = {"target": 0.9, "source": 0.1}
    mixture = Mixture(corpus=settings(target=["a"], source=["b"]), parts=parts)
    assert mixture.shares(lambda text: pytest.fail("no size is needed")) == parts
    assert mixture.settings == parts


def test_a_changed_share_changes_the_settings_of_a_mixture_and_files_do_not(settings: Any) -> None:
    def found(one: SourceSettings, temperature: float = 1.0) -> Any:
        corpus = settings(sources={"web": one, "kk": source("kk")}, temperature=temperature)
        return Mixture(corpus=corpus, parts=None).settings

    one = source(repeat=2)
    assert found(one) == found(replace(one, files=["elsewhere"]))
    assert found(one) != found(replace(one, repeat=3))
    assert found(one) != found(one, temperature=2.0)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("corpus.sources.web.files", {"sources": {"web": SourceSettings(language="ru")}}),
        ("corpus.sources.web.language", {"sources": {"web": SourceSettings(files=["a"])}}),
        ("corpus.sources.web.repeat", {"sources": {"web": source(share=0.5, repeat=2)}}),
        ("corpus.sources.web.share", {"sources": {"web": source(share=0)}}),
        ("corpus.sources.target", {"sources": {"target": source()}}),
        ("corpus.texts.web", {"sources": {"web": source()}, "texts": {"web": ["a"]}}),
        ("corpus.target", {"sources": {"web": source()}, "target": ["a"]}),
        ("corpus.source_languages", {"sources": {"web": source()}, "source_languages": ["en"]}),
        ("corpus.source_languages", {"sources": {"web": source()}, "source_languages": ["ru"]}),
        ("corpus.source_languages", {"source_languages": ["en"]}),
        ("corpus.temperature", {"sources": {"web": source(share=1)}, "temperature": 2}),
        ("corpus.temperature", {"temperature": 2}),
        ("corpus.sources", {"sources": {"web": source(share=1), "kk": source("kk")}}),
    ],
)
def test_a_contradictory_mixture_is_refused(key: str, changes: Any, settings: Any) -> None:
    with user_error(key):
        settings(**changes)


def test_replay_beside_sources_is_refused(settings: Any) -> None:
    check_replay(settings(target=["a"]), 0.1)
    with user_error("train.replay"):
        check_replay(settings(sources={"web": source()}), 0.1)


def test_a_document_of_two_sources_belongs_to_the_first(settings: Any, tmp_path: Path) -> None:
    shared = [f"shared {i}" for i in range(40)]
    own = {name: [f"{name} {i}" for i in range(10)] + shared for name in ("web", "wiki")}
    elsewhere: set[bytes] = set()
    counts = {}
    for name, texts in own.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        key = f"corpus.sources.{name}.files"
        folder = tmp_path / name
        counts[name] = build_corpus([str(file)], key, settings(), 1, folder, elsewhere=elsewhere)
    assert (counts["web"].documents, counts["wiki"].documents) == (50, 10)
    assert counts["wiki"].duplicates == 40
    kept = {
        name: {
            p: set(load_texts(tmp_path / name / f"{p}.jsonl")) for p in ("train", "tune", "test")
        }
        for name in own
    }
    heldout = set().union(*(parts[p] for parts in kept.values() for p in ("tune", "test")))
    assert not heldout & (kept["web"]["train"] | kept["wiki"]["train"])
    assert min(counts["wiki"].test, counts["wiki"].tune) > 0

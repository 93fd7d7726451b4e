"""Near-duplicates: signatures and candidates against the formulas, planted copies, any order."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from errors import user_error
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hpc_llm.corpus import build_corpus, load_texts
from hpc_llm.corpus.near import NearCopies, candidate_chance, sign
from hpc_llm.corpus.near import _groups as groups
from hpc_llm.settings import CorpusSettings
from hpc_llm.settings.cleaning import MinhashSettings
from hpc_llm.settings.sources import SourceSettings
from hpc_llm.stages import corpus

Settings = Callable[..., CorpusSettings]
MINHASH = MinhashSettings()
PARTS = ("train", "tune", "test")


def words(count: int, seed: int) -> list[str]:
    generator = random.Random(seed)
    return [f"слово{generator.randrange(10**9)}" for _ in range(count)]


def shingles(text: str, length: int = 5) -> set[tuple[str, ...]]:
    parts = text.split()
    return {tuple(parts[i : i + length]) for i in range(len(parts) - length + 1)}


def jaccard(one: str, other: str) -> float:
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def pair(seed: int, shared: int, own: int) -> tuple[str, str]:
    """Two texts that begin with the same words."""
    begin = words(shared + 4, seed)
    return tuple(" ".join(begin + words(own, seed * 2 + side)) for side in (10**6, 10**6 + 1))


@pytest.mark.parametrize(("shared", "own"), [(60, 30), (75, 15), (90, 10), (96, 3)])
def test_equal_positions_estimate_the_jaccard_index(shared: int, own: int) -> None:
    estimates, exact = [], jaccard(*pair(0, shared, own))
    for seed in range(60):
        one, other = (sign(text, MINHASH) for text in pair(seed, shared, own))
        estimates.append((one == other).mean())
    deviation = (exact * (1 - exact) / len(one)) ** 0.5
    assert abs(np.mean(estimates) - exact) < 4 * deviation / len(estimates) ** 0.5
    assert 0.7 * deviation < np.std(estimates) < 1.4 * deviation


@pytest.mark.parametrize(("shared", "own"), [(70, 15), (80, 12), (80, 8)])
def test_candidates_are_found_as_often_as_the_formula_says(shared: int, own: int) -> None:
    count = 400
    exact = jaccard(*pair(0, shared, own))
    chance = candidate_chance(exact, MINHASH.buckets, MINHASH.rows)
    texts = [text for seed in range(count) for text in pair(seed, shared, own)]
    hits = len(groups(np.stack([sign(text, MINHASH) for text in texts]), MINHASH.buckets))
    assert abs(hits / count - chance) < 3 * (chance * (1 - chance) / count) ** 0.5


def test_the_formula_has_the_published_values() -> None:
    for similarity, chance in ((0.7, 0.565), (0.75, 0.772), (0.8, 0.924), (0.85, 0.988)):
        assert candidate_chance(similarity, 14, 8) == pytest.approx(chance, abs=1e-3)


def test_case_punctuation_and_space_do_not_count() -> None:
    one = "Он пришёл, увидел дом; и сел у двери. Потом ушёл."
    other = "он ПРИШЁЛ увидел — дом и\n\nсел «у двери» потом ушёл"
    assert (sign(one, MINHASH) == sign(other, MINHASH)).all()
    assert sign("всего четыре слова тут", MINHASH) is None


@given(st.permutations(range(12)))
@examples(max_examples=30, deadline=None, derandomize=True)
def test_the_kept_documents_do_not_depend_on_the_order(order: list[int]) -> None:
    near = NearCopies(MINHASH)
    for place in order:
        near.add(CHAIN[place], CHAIN[place].encode())
    kept = {CHAIN[order[i]] for i in set(range(12)) - set(near.find().kept_by)}
    assert kept == CHAIN_KEPT[0]


def chain() -> list[str]:
    """Each text is similar to the next one, the first not to the last; two are of equal length."""
    text = words(100, 1)
    texts = []
    for place in range(10):
        texts.append(" ".join(text))
        text = [*text[4:], *words(4 + (place < 8), place + 50)]
    return [*texts, texts[0] + " конец", texts[0] + " венец"]


def greedy(texts: list[str]) -> set[str]:
    near = NearCopies(MINHASH)
    for text in texts:
        near.add(text, text.encode())
    return {text for place, text in enumerate(texts) if place not in near.find().kept_by}


CHAIN = chain()
CHAIN_KEPT = [greedy(CHAIN)]


def test_a_chain_does_not_join_unlike_documents() -> None:
    assert 1 < len(CHAIN_KEPT[0]) < 12
    for text in CHAIN:
        if text not in CHAIN_KEPT[0]:  # similar to a longer kept one
            assert max(jaccard(text, other) for other in CHAIN_KEPT[0]) > MINHASH.verify - 0.12


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)


def prose(shared: Path, count: int) -> list[str]:
    with gzip.open(shared / "data/ru/ru_prose.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for _, line in zip(range(count), file, strict=False)]


def changed(text: str, share: float, generator: random.Random) -> str:
    parts = text.split(" ")
    for place in range(len(parts)):
        if generator.random() < share:
            parts[place] = f"замена{generator.randrange(10**6)}"
    return " ".join(parts)


def test_planted_copies_in_prose(shared: Path, tmp_path: Path, settings: Settings) -> None:
    """Copies with 1 % of the words changed, and with two halves swapped, in 400 passages."""
    generator, texts = random.Random(0), prose(shared, 400)
    plan = settings(deduplicate="minhash", target=["x"])
    entry = write(tmp_path / "clean.jsonl", texts)
    before = build_corpus([entry], "corpus.target", plan, 1, tmp_path / "clean")
    assert before.near == 0
    copies = [changed(text, 0.01, generator) for text in generator.sample(texts, 60)]
    for text in generator.sample(texts, 40):
        half = text.index(" ", len(text) // 2)
        copies.append(f"{text[half:]} {text[:half]}")
    entry = write(tmp_path / "dirty.jsonl", generator.sample(texts + copies, 500))
    after = build_corpus([entry], "corpus.target", plan, 1, tmp_path / "dirty")
    found = after.near + after.duplicates  # some short passages are copied unchanged
    assert found >= 98
    assert after.documents == 500 - found
    kept = sum(len(load_texts(tmp_path / f"dirty/{name}.jsonl")) for name in PARTS)
    assert kept == after.documents == after.train + after.tune + after.test
    report = json.loads((tmp_path / "dirty/report.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "dirty/clusters.jsonl").open()]
    assert sum(len(row["dropped"]) for row in rows) == after.near
    sizes = {int(size): count for size, count in report["clusters"]["by_size"].items()}
    assert sum((size - 1) * count for size, count in sizes.items()) == after.near
    assert min(one["similarity"] for row in rows for one in row["dropped"]) >= 0.7
    assert not (tmp_path / "dirty" / "unique.jsonl").exists()


def test_no_copy_of_a_held_out_document_is_trained_on(tmp_path: Path, settings: Settings) -> None:
    texts = [" ".join(words(120, seed)) for seed in range(100)]
    copies = [f"начало {text} конец" for text in texts]
    plan = settings(deduplicate="minhash", test_documents=20, tune_documents=10)
    entry = write(tmp_path / "all.jsonl", [*texts, *copies])
    build_corpus([entry], "corpus.target", plan, 1, tmp_path / "out")
    parts = {name: load_texts(tmp_path / f"out/{name}.jsonl") for name in PARTS}
    assert (len(parts["test"]), len(parts["tune"])) == (20, 10)
    heldout = parts["test"] + parts["tune"]
    assert max(jaccard(one, other) for one in heldout for other in parts["train"]) < 0.6
    entry = write(tmp_path / "more.jsonl", texts + [f"ещё {text}" for text in heldout[:9]])
    counts = build_corpus(
        [entry], "corpus.texts.more", plan, 1, tmp_path / "more", heldout=heldout, similar=heldout
    )
    assert counts.near == 30 + 9  # near copies: without the words before and after, with more
    train = load_texts(tmp_path / "more/train.jsonl")
    assert max(jaccard(one, other) for one in heldout for other in train) < 0.6


def test_unknown_ways(settings: Settings) -> None:
    with user_error("corpus.deduplicate", "exact", "minhash", value="fuzzy"):
        settings(deduplicate="fuzzy")
    with user_error("corpus.minhash.verify", 1, value=1.5):
        settings(minhash=MinhashSettings(verify=1.5))


def test_similar_documents_belong_to_the_first_source(tmp_path: Path, settings: Settings) -> None:
    texts = [" ".join(words(60, seed)) for seed in range(40)]
    first = write(tmp_path / "first.jsonl", texts[:30])
    second = write(tmp_path / "second.jsonl", [f"{text} конец" for text in texts[10:]])
    sources = {
        name: SourceSettings(files=[file], language="ru")
        for name, file in (("first", first), ("second", second))
    }
    plan = settings(deduplicate="minhash", sources=sources)
    cfg = SimpleNamespace(corpus=plan, text_seed=1)
    context = SimpleNamespace(cfg=cfg, stage_folder=lambda name: tmp_path / name)
    result = corpus.run(context, "corpus")
    assert (result["first"]["documents"], result["first"]["near"]) == (30, 0)
    assert (result["second"]["documents"], result["second"]["near"]) == (10, 20)
    assert "20 near-duplicates dropped from second" in result["line"]


def test_templates_alone_leave_nothing_to_hold_out(tmp_path: Path, settings: Settings) -> None:
    """All are candidates of each other, and no two are similar enough to be dropped."""
    frame = [" ".join(words(6, seed)) for seed in range(30)]
    texts = [" ".join([*frame, *words(60, seed)]) for seed in range(100, 140)]
    plan = settings(deduplicate="minhash", minhash=MinhashSettings(buckets=100, rows=2, verify=1))
    entry = write(tmp_path / "in.jsonl", texts)
    with user_error("corpus.deduplicate", "corpus.minhash.rows", value="minhash"):
        build_corpus([entry], "corpus.target", plan, 1, tmp_path / "out")
    mixed = [*texts, *(" ".join(words(60, seed)) for seed in range(200, 204))]
    counts = build_corpus(
        [write(tmp_path / "in.jsonl", mixed)], "corpus.target", plan, 1, tmp_path / "more"
    )
    heldout = load_texts(tmp_path / "more/test.jsonl") + load_texts(tmp_path / "more/tune.jsonl")
    assert set(heldout) <= set(mixed[-4:])
    assert (counts.near, counts.test, counts.tune, counts.train) == (0, 3, 1, 40)

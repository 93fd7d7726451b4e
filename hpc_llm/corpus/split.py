"""One pass over all documents: clean, deduplicate, split into train, tune and test.

A document is held out when the keyed hash of its text is among the smallest of the corpus. So the
split depends on the texts and the seed only, never on the order, the names or the number of the
files; and since duplicates are dropped first, no held-out document is trained on. Memory: 16 bytes
of digest for each document (about 100 with Python's set) and the held-out texts.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hpc_llm.corpus.documents import expand_entries, read_documents
from hpc_llm.corpus.drops import CONTAMINATED, LATER, NEAR, NEAR_ELSEWHERE, Drops
from hpc_llm.corpus.rules import build_filter
from hpc_llm.corpus.selection import Selection
from hpc_llm.errors import UserError
from hpc_llm.rundir import readable
from hpc_llm.settings import CorpusSettings

__all__ = ["CorpusCounts", "build_corpus", "load_texts", "read_texts"]

MOST_LOST = 0.9
"""Largest share of the documents, and of the bytes, that rules may drop."""


@dataclass(frozen=True, kw_only=True)
class CorpusCounts:
    """Statistics of a corpus; bytes are those of UTF-8, words are separated by white space."""

    documents: int
    """Kept documents: train + tune + test."""
    characters: int
    """Of the kept documents."""
    bytes: int
    """Of the kept documents."""
    duplicates: int
    """Documents dropped as exact duplicates after cleaning."""
    dropped: int
    """Documents dropped as shorter than corpus.min_characters."""
    empty: int
    """Of these, documents without any text: null, or empty after cleaning."""
    train: int
    """Training documents."""
    tune: int
    """Held-out documents on which the merging factor is chosen."""
    test: int
    """Held-out documents on which bits per byte are reported."""
    test_bytes: int
    """Of the test documents."""
    excluded: int
    """Documents dropped as held out from another text."""
    words: int
    """Of the training documents."""
    invisible: int
    """Characters removed from the documents: control characters, unpaired surrogates, marks."""
    cleaned: int = 0
    """Documents dropped by the rules of corpus.language and corpus.clean."""
    near: int = 0
    """Documents dropped as near-duplicates of this text or another one."""
    contaminated: int = 0
    """Training documents dropped for text of corpus.decontaminate."""


def _write(path: Path, texts: Iterable[str]) -> int:
    """Write one JSON line for each text; return their number."""
    count = 0
    with path.open("w", encoding="utf-8") as handle:
        for text in texts:
            handle.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            count += 1
    return count


def _name(key: str) -> str:
    """Return the text whose entries the setting `key` holds: web for corpus.sources.web.files."""
    parts = key.split(".")
    return parts[1] if len(parts) == 2 else parts[2]


def _fields(entries: list[str], key: str, settings: CorpusSettings) -> dict[str, str]:
    """Return the files and sources of `entries`, each with its field of the text."""
    name = _name(key)
    found: dict[str, str] = {}
    for entry in entries:
        for source in expand_entries([entry], key):
            found.setdefault(source, settings.field_of(name, entry))
    return found


def build_corpus(  # noqa: PLR0913 (what a text is, and what it shares with others)
    entries: list[str],
    key: str,
    settings: CorpusSettings,
    seed: int,
    folder: Path,
    *,
    heldout: Iterable[str] | None = None,
    elsewhere: set[bytes] | None = None,
    similar: Iterable[str] = (),
) -> CorpusCounts:
    """Write `train.jsonl`, `tune.jsonl` and `test.jsonl` into `folder`; return the counts.

    `entries` are files, patterns, samples and hub data sets (`CorpusSettings`); `key` names them in
    errors (`corpus.target`). At most `test_documents + tune_documents`, and no larger share than
    `max_heldout_share`, are held out, but always one for each. With `heldout`, the documents held
    out from other texts, none is held out here and these are dropped from the text. A document of
    another text, by its digest in `elsewhere`, is a duplicate; the digests of this text are added.
    With deduplicate=minhash, near-duplicates of the texts `similar` are dropped, too. With rules,
    `report.json` and `samples/RULE.jsonl` show what they drop. Raises `UserError` for what cannot
    be read, for rules that drop nearly all, for fewer than three documents (one with `heldout`),
    and if none can be held out; a full disk raises `OSError`.
    """
    documents = (
        (source, text)
        for source, field in _fields(entries, key, settings).items()
        for text in read_documents(source, settings, field)
    )
    rules = build_filter(settings) if _name(key) in settings.cleaned_texts else None
    corpus = Selection(settings, seed, heldout, elsewhere, rules)
    corpus.similar = similar
    folder.mkdir(parents=True, exist_ok=True)
    texts = corpus.train_texts(islice(documents, settings.max_documents), folder)
    train = _write(folder / "train.jsonl", texts)
    if rules is not None:
        _refuse_mismatch(key, settings, corpus.drops)
    if rules is not None or settings.deduplicate != "exact" or settings.decontaminate:
        kept = {"documents": corpus.documents, "bytes": corpus.bytes}
        corpus.drops.write(folder, kept)
    _require_enough(corpus, key, entries, settings, holds_out=heldout is None)
    if elsewhere is not None:
        elsewhere |= corpus.seen
    tune = _write(folder / "tune.jsonl", corpus.tune)
    test = _write(folder / "test.jsonl", corpus.test)
    return _counts(corpus, train, tune, test)


def _require_enough(
    corpus: Selection, key: str, entries: list[str], settings: CorpusSettings, *, holds_out: bool
) -> None:
    """Raise `UserError` for too few documents, and if none of them can be held out."""
    least = 3 if holds_out else 1
    if corpus.documents < least:
        rule = (
            f"has {corpus.documents} documents of at least {settings.min_characters} characters "
            f"(dropped: {corpus.duplicates} duplicates, {corpus.dropped} shorter, "
            f"{corpus.excluded} held out)"
        )
        fix = (
            f"give at least {least} (a .txt below 64 KiB, or without line feeds, is one document; "
            "a line of .jsonl is one)"
        )
        raise UserError(key, ",".join(entries) or "[]", rule, fix)
    if holds_out and not (corpus.test and corpus.tune):
        rule = f"leaves less than two documents of {key} without candidates for near-duplicates"
        fix = "the text is made of templates: clean it, or set corpus.minhash.rows higher"
        raise UserError("corpus.deduplicate", settings.deduplicate, rule, fix)


def _counts(corpus: Selection, train: int, tune: int, test: int) -> CorpusCounts:
    """Return the counts of a finished pass, with the documents of each part."""
    dropped = corpus.drops.documents
    return CorpusCounts(
        documents=corpus.documents,
        characters=corpus.characters,
        bytes=corpus.bytes,
        duplicates=corpus.duplicates,
        dropped=corpus.dropped,
        empty=corpus.empty,
        train=train,
        tune=tune,
        test=test,
        test_bytes=sum(len(text.encode()) for text in corpus.test),
        excluded=corpus.excluded,
        words=corpus.words,
        invisible=corpus.invisible,
        cleaned=dropped.total() - sum(dropped[rule] for rule in LATER),
        near=dropped[NEAR] + dropped[NEAR_ELSEWHERE],
        contaminated=dropped[CONTAMINATED],
    )


def _refuse_mismatch(key: str, settings: CorpusSettings, drops: Drops) -> None:
    """Raise `UserError` for rules that drop nearly all of a text: they are not made for it."""
    lost = max(drops.lost("documents"), drops.lost("bytes"))
    if lost <= MOST_LOST:
        return
    worst, share = drops.worst()
    rule = f"drops {lost:.1%} of {key}, more than {MOST_LOST:.0%}; the rule {worst} {share:.1%}"
    fix = (
        "change its setting; for books, verse and code, whose lines are no sentences, use "
        "corpus.clean=none"
    )
    if worst == "script":
        languages = f"[{','.join(settings.language.keep)}]"
        raise UserError("corpus.language.keep", languages, rule, "name the languages of the text")
    raise UserError("corpus.clean", settings.clean, rule, fix)


def read_texts(path: Path) -> Iterator[str]:
    """Yield the texts of a file that `build_corpus` wrote."""
    with readable(path), path.open("rb") as handle:
        for line in handle:
            yield json.loads(line)["text"]


def load_texts(path: Path) -> list[str]:
    """Return the texts of a file that `build_corpus` wrote."""
    return list(read_texts(path))

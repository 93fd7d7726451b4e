"""Stage `corpus`: read, clean, deduplicate and split every text of the run."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc_llm.corpus import build_corpus, read_texts
from hpc_llm.errors import UserError
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder
from hpc_llm.settings.corpus import CorpusSettings

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write corpus/TEXT/{train,tune,test}.jsonl of each text; return the counts by text.

    A document of several sources belongs to the first of them, so no source holds out a document
    on which another one trains. With rules, report.json and samples/RULE.jsonl of a text show what
    each rule drops.
    """
    settings = context.cfg.corpus
    if not settings.texts_in("target"):
        raise UserError(
            "corpus.target",
            "[]",
            "no text in the new language",
            "set corpus.target to files (ru.jsonl.gz), a pattern or hub:OWNER/NAME, or "
            "corpus.sources, or use corpus=sample",
        )
    counts: dict[str, Any] = {}
    with replaced_folder(context.stage_folder(name)) as folder:
        heldout: list[str] = []
        elsewhere: set[bytes] | None = set() if settings.sources else None
        for text in settings.names:
            key, entries = settings.entries(text)
            found = build_corpus(
                entries,
                key,
                settings,
                context.cfg.text_seed,
                folder / text,
                heldout=None if text in settings.evaluated else heldout,
                elsewhere=elsewhere if text in settings.sources else None,
                similar=_similar(folder, text, settings, heldout),
            )
            if found.contaminated and not found.train:
                rule = f"all {found.contaminated:,} training documents of {key} have text of it"
                fix = "name evaluation files only, no training text"
                raise UserError("corpus.decontaminate", settings.decontaminate, rule, fix)
            if text in settings.evaluated:
                heldout += [
                    document
                    for part in ("tune", "test")
                    for document in read_texts(folder / text / f"{part}.jsonl")
                ]
            counts[text] = asdict(found)
    return {**counts, "line": _line(counts, settings)}


def _similar(
    folder: Path, text: str, settings: CorpusSettings, heldout: list[str]
) -> Iterator[str]:
    """Yield the documents whose near-duplicates a text must not have.

    Of a source: all of the sources before it. Of a text without held-out documents: all held out.
    """
    if text not in settings.evaluated:
        yield from heldout
    for before in list(settings.sources)[: list(settings.names).index(text)]:
        for part in ("train", "tune", "test") if text in settings.sources else ():
            yield from read_texts(folder / before / f"{part}.jsonl")


def _line(counts: Mapping[str, Mapping[str, int]], settings: CorpusSettings) -> str:
    """Return the log line: the counts of the target, and what was dropped or lacks in any text."""
    texts = settings.texts_in("target")
    target = {key: sum(counts[text][key] for text in texts) for key in counts[texts[0]]}
    line = (
        f"{target['documents']:,} documents, {target['duplicates']:,} duplicates; "
        f"train {target['train']:,} tune {target['tune']:,} test {target['test']:,}"
    )
    for text, counted in counts.items():
        short = counted["dropped"] - counted["empty"]
        removed = {
            "empty documents dropped from": counted["empty"],
            f"documents of less than {settings.min_characters:,} characters dropped from": short,
            "documents dropped by rules (samples/) from": counted["cleaned"],
            "near-duplicates dropped from": counted["near"],
            "documents with text of corpus.decontaminate dropped from": counted["contaminated"],
            "invisible characters removed from": counted["invisible"],
        }
        line += "".join(f"; {count:,} {words} {text}" for words, count in removed.items() if count)
        test, tune = settings.test_documents, settings.tune_documents
        if text in settings.evaluated and counted["test"] + counted["tune"] < test + tune:
            line += (
                f"; only {counted['test']:,} test and {counted['tune']:,} tune documents of {text} "
                f"held out (set: {test:,} and {tune:,})"
            )
    return line

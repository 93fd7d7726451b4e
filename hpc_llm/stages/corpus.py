"""Stage `corpus`: read, clean, deduplicate and split every text of the run."""

from dataclasses import asdict
from typing import Any

from hpc_llm.corpus import build_corpus, read_texts
from hpc_llm.errors import UserError
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder
from hpc_llm.settings.corpus import LANGUAGES

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write corpus/TEXT/{train,tune,test}.jsonl of each text; return the counts by text."""
    settings = context.cfg.corpus
    if not settings.target:
        raise UserError(
            "corpus.target",
            "[]",
            "no text in the new language",
            "set corpus.target to files (ru.jsonl.gz), a pattern or hub:OWNER/NAME, or use "
            "corpus=sample",
        )
    counts: dict[str, Any] = {}
    with replaced_folder(context.stage_folder(name)) as folder:
        heldout: list[str] = []
        for text in settings.names:
            key, entries = settings.entries(text)
            found = build_corpus(
                entries,
                key,
                settings,
                context.cfg.seed,
                folder / text,
                heldout=None if text in LANGUAGES else heldout,
            )
            if text in LANGUAGES:
                heldout += [
                    document
                    for part in ("tune", "test")
                    for document in read_texts(folder / text / f"{part}.jsonl")
                ]
            counts[text] = asdict(found)
    target = counts["target"]
    line = (
        f"{target['documents']:,} documents, {target['duplicates']:,} duplicates; "
        f"train {target['train']:,} tune {target['tune']:,} test {target['test']:,}"
    )
    for text, counted in counts.items():
        if counted["invisible"]:
            line += f"; {counted['invisible']:,} invisible characters removed from {text}"
    return {**counts, "line": line}

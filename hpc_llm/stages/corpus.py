"""Stage `corpus`: read, clean, deduplicate and split the text of both languages."""

from dataclasses import asdict
from typing import Any

from hpc_llm.corpus import build_corpus, expand_entries
from hpc_llm.errors import UserError
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write corpus/{target,source}/{train,tune,test}.jsonl; return the counts."""
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
        for language in ("target", "source"):
            key = f"corpus.{language}"
            entries = expand_entries(getattr(settings, language), key)
            if entries:
                part = folder / language
                part.mkdir()
                counts[language] = asdict(
                    build_corpus(entries, key, settings, context.cfg.seed, part)
                )
    target = counts["target"]
    line = (
        f"{target['documents']:,} documents, {target['duplicates']:,} duplicates; "
        f"train {target['train']:,} tune {target['tune']:,} test {target['test']:,}"
    )
    return {**counts, "line": line}

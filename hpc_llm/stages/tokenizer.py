"""Stage `tokenizer`: build the tokenizer of the adapted model and encode the training text."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from hpc_llm.corpus import read_texts
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import training_texts
from hpc_llm.rundir import replaced_folder
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.stages.texts import encoder, heldout, text_file, training_text
from hpc_llm.surgery.loading import embedding_rows, load_tokenizer
from hpc_llm.tokenizer.encode import ShardCounts, write_shards
from hpc_llm.tokenizer.measures import compare
from hpc_llm.vocabulary.modes import Base, mode_of

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write tokenizer/: the tokenizer of `transplant.mode` and the shards of the training text.

    ids.npy has the base model's id of each row (int64), -1 for a new token, if the mode fixes it.
    """
    cfg = context.cfg
    base = base_vocabulary(context)
    old = base.tokenizer
    with replaced_folder(context.stage_folder(name)) as folder:
        built = mode_of(cfg).build(base, folder)
        new, coder = built.tokenizer, built.coder
        if built.old_ids is not None:
            np.save(folder / "ids.npy", np.asarray(built.old_ids, dtype=np.int64))
        (folder / "shards").mkdir()
        shards = {
            text: write_shards(
                read_texts(text_file(context, text, "train")), coder, folder / "shards" / text
            )
            for text in training_texts(cfg)
        }
        texts = heldout(context, "target", "tune")
        special = cfg.tokenizer.special_strings
        old_ids, new_ids = (encoder(each, special) for each in (old, new))
        measures = compare(old_ids, new_ids, texts, new.decode)
    target, source = (_sum(shards, cfg.corpus.texts_in(name)) for name in LANGUAGES)
    changes = "".join(f" ({count:,} {done})" for done, count in built.report.items())
    line = (
        f"{len(new):,} tokens{changes}; x{measures['token_ratio']:.3f} tokens for the same text; "
        f"{target['tokens']:,} training tokens"
    )
    return {
        "vocab_size": len(new),
        "old_vocab_size": len(old),
        "rows": coder.size,
        **built.report,
        **measures,
        **target,
        "replayed": source or None,
        "texts": {text: asdict(counts) for text, counts in shards.items()},
        "line": line,
    }


def _sum(shards: Mapping[str, ShardCounts], texts: list[str]) -> dict[str, int]:
    """Return the counts of the shards of some texts; {} if there are none."""
    found = [asdict(shards[text]) for text in texts if text in shards]
    return {key: sum(counts[key] for counts in found) for key in found[0]} if found else {}


def base_vocabulary(context: Context) -> Base:
    """Return what a vocabulary mode starts from."""
    settings = context.cfg.model
    return Base(
        cfg=context.cfg,
        path=context.base,
        tokenizer=load_tokenizer(context.base, settings),
        rows=embedding_rows(context.base, settings),
        texts=partial(training_text, context),
    )

"""Stage `transplant`: replace the vocabulary; embeddings of shared tokens are kept."""

from typing import Any

import numpy as np

from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder
from hpc_llm.stages.assemble import load_base
from hpc_llm.surgery.loading import DTYPES, load_tokenizer
from hpc_llm.surgery.merge import save_model
from hpc_llm.vocabulary.transplant import transplant

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write transplant/: the model with new embeddings and LM head, and its tokenizer.

    new_rows.npy has the ids (int64) of tokens that the base model did not have.
    """
    cfg = context.cfg
    model = load_base(context)
    old = load_tokenizer(context.base, cfg.model)
    new = load_tokenizer(context.stage_folder("tokenizer"), cfg.model)
    counts, unseen = transplant(model, old, new, cfg.transplant, cfg.seed)
    with replaced_folder(context.stage_folder(name)) as folder:
        save_model(model, new, folder, DTYPES[cfg.train.precision])
        np.save(folder / "new_rows.npy", np.array(unseen, dtype=np.int64))
    line = (
        f"{counts['rows']:,} rows: {counts['copied']:,} copied, {counts['mean']:,} initialised, "
        f"{counts['special']} special, {counts['unknown']} unknown"
    )
    if counts["without_row"]:
        line += f"; {counts['without_row']} old tokens have no embedding"
    if counts["dropped_token_ids"]:
        line += f"; dropped, not in the new vocabulary: {', '.join(counts['dropped_token_ids'])}"
    return {**counts, "line": line}

"""Stage `transplant`: give the model the new vocabulary; shared tokens keep their rows.

With `transplant.mode=keep` the model is that of the base, bit by bit.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder, write_json
from hpc_llm.stages.assemble import load_base
from hpc_llm.stages.from_files import open_base, tokenizer_to_save
from hpc_llm.surgery.loading import DTYPES, load_tokenizer
from hpc_llm.surgery.merge import save_model
from hpc_llm.surgery.outline import NotStreamed, Outline
from hpc_llm.surgery.positions import stretch_positions
from hpc_llm.tokenizer.encode import open_shards
from hpc_llm.vocabulary.donors import Donor, donor_of
from hpc_llm.vocabulary.modes import mode_of
from hpc_llm.vocabulary.rows import TrainingText
from hpc_llm.vocabulary.surfaces import surfaces
from hpc_llm.vocabulary.transplant import transplant

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write transplant/: the model with new embeddings and LM head, and its tokenizer.

    new_rows.npy has the ids (int64) of tokens that the base model did not have, report.json the
    sources, fits and norms of the rows of each side; the record has their seconds as well. All
    other weights go from file to file; `loaded_whole` of the record says why they did not, or is
    null.
    """
    with replaced_folder(context.stage_folder(name)) as folder:
        try:
            counts, unseen = _write(context, open_base(context), folder)
            whole = None
        except NotStreamed as reason:
            counts, unseen = _write(context, load_base(context), folder)
            whole = str(reason)
        np.save(folder / "new_rows.npy", np.array(unseen, dtype=np.int64))
        write_json(folder / "report.json", _repeatable(counts))
    _state_file(context).unlink(missing_ok=True)
    return {**counts, "loaded_whole": whole, "line": _line(counts)}


def _write(
    context: Context, base: Outline | PreTrainedModel, folder: Path
) -> tuple[dict[str, Any], list[int]]:
    """Write the model with the new vocabulary; return what `transplant` returns."""
    cfg = context.cfg
    model = base.model if isinstance(base, Outline) else base
    if cfg.model.rope_scaling:
        stretch_positions(model.config, cfg.model.rope_scaling)
    done = _transplant(context, model) if mode_of(cfg).changes else ({}, [])
    tokenizer = tokenizer_to_save(context)
    if isinstance(base, Outline):
        base.save(tokenizer, folder)
    else:
        save_model(base, tokenizer, folder, DTYPES[cfg.train.precision])
    return done


def _repeatable(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries without seconds: equal runs write equal files."""
    parts = {k: _repeatable(v) if isinstance(v, dict) else v for k, v in counts.items()}
    return {k: v for k, v in parts.items() if k != "seconds"}


def _transplant(context: Context, model: PreTrainedModel) -> tuple[dict[str, Any], list[int]]:
    """Replace the vocabulary of `model`; return what `transplant` returns."""
    cfg, folder = context.cfg, context.stage_folder("tokenizer")
    old, new = load_tokenizer(context.base, cfg.model), load_tokenizer(folder, cfg.model)
    file = folder / "ids.npy"
    old_ids = np.load(file).tolist() if file.exists() else None
    text = TrainingText(
        vectors=donor_vectors(context, new, len(new) if old_ids is None else len(old_ids)),
        documents=TargetText(context, cfg.transplant.donor.max_tokens),
        state=_state_file(context),
    )
    return transplant(model, old, new, cfg.transplant, cfg.seed, text, old_ids=old_ids)


def _state_file(context: Context) -> Path:
    """Return the file from which an initialisation resumes its training after a kill."""
    return context.folder.path / f".transplant-{context.stage('transplant').fingerprint}.state"


def _line(counts: Mapping[str, Any]) -> str:
    """Return the line of the log: rows by source, and the fit, of each side."""
    if not counts:
        return "the base model, unchanged"
    line = (
        f"{counts['rows']:,} rows: {counts['copied']:,} copied, {counts['special']} special, "
        f"{counts['new']:,} new"
    )
    for side in ("input", "output"):
        if (report := counts[side]) is not None:
            line += f"; {side if counts['output'] else 'tied'}: {_side_text(report)}"
    if counts["unspelled"]:
        line += f"; {counts['unspelled']:,} new tokens cannot be spelled with old ones"
    if counts["without_row"]:
        line += f"; {counts['without_row']} old tokens have no embedding"
    if counts["dropped_token_ids"]:
        line += f"; dropped, not in the new vocabulary: {', '.join(counts['dropped_token_ids'])}"
    return line


def _side_text(report: Mapping[str, Any]) -> str:
    """Return `focus 3,012, random 163, fitted to 921 shared tokens (held-out R2 0.31)`."""
    sources = report["sources"].items()
    words = [f"{name} {n:,}" for name, n in sources if name not in ("copied", "special")]
    text = ", ".join(words) or "nothing new"
    if "distillation" in report and (error := report["distillation"]["error"]) is not None:
        text += f", relative error {report['distillation']['error_before']:.3f} -> {error:.3f}"
    if "anchors" in report:
        text += f", fitted to {report['anchors']:,} shared tokens"
        text += f" (held-out R2 {report['r2']:.2f})" if "r2" in report else ""
    return text


class TargetText:
    """Token ids (length,) of the documents of the target text, spread evenly, about `most` tokens.

    Can be iterated several times.
    """

    def __init__(self, context: Context, most: int) -> None:
        """Name the shards; they are opened when the text is read."""
        shards = context.stage_folder("tokenizer") / "shards"
        self._prefixes = [shards / text for text in context.cfg.corpus.texts_in("target")]
        self._most = most

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield documents, more than `most` tokens of them where lengths differ."""
        texts = [open_shards(prefix) for prefix in self._prefixes]
        step = max(1, sum(int(documents.sizes.sum()) for documents in texts) // self._most)
        for documents in texts:
            yield from (np.array(documents.get(i)) for i in range(0, len(documents), step))


def donor_vectors(
    context: Context, new: PreTrainedTokenizerBase, size: int
) -> Callable[[int], Donor]:
    """Return a function from a largest length to vectors of the tokens of `new`, in `size` rows.

    They are made from the shards of the target text, once for both sides of the model.
    """
    settings = context.cfg.transplant.donor
    texts = [surface and surface.text for surface in surfaces(new)]
    texts += [None] * (size - len(texts))  # rows that fill up the embedding

    @cache
    def vectors(dimensions: int) -> Donor:
        text = TargetText(context, settings.max_tokens)
        return donor_of(settings.kind)(text, texts, dimensions, settings)

    return vectors

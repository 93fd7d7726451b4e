"""Stage `correct`: choose the merging factor phi on held-out text, then merge the model.

All ranks search; rank 0 merges and writes.
"""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from hpc_llm.evaluation.bits_per_byte import document_nll, document_scoring, score
from hpc_llm.evaluation.inference import is_partitioned
from hpc_llm.evaluation.lora_scale import scaled
from hpc_llm.evaluation.merging_factor import Losses, PhiChoice, choose_phi
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder, write_json
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.stages.assemble import (
    has_adapter,
    model_at,
    open_adapter,
    vocabulary_rows,
    whole_adapted,
)
from hpc_llm.stages.from_files import tokenizer_to_save, write_final
from hpc_llm.stages.texts import encoder, first_token, heldout, heldout_note
from hpc_llm.surgery.loading import DTYPES, load_tokenizer
from hpc_llm.surgery.merge import merge_adapter, save_model
from hpc_llm.surgery.outline import NotStreamed
from hpc_llm.tokenizer.export import SENTENCEPIECE_NAME
from hpc_llm.training.process_group import agreed, on_first_rank

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write correct/phi.json (the curve and the chosen phi) and model/, the result of the run."""
    adapted, weighted = has_adapter(context), context.cfg.correct.rule == "weighted"
    base = _base_nll(context) if adapted and weighted else None
    with open_adapter(context) as model:
        choice = _choose(context, model, base) if adapted else None
        if not is_partitioned(model):
            return on_first_rank(lambda: _write(context, name, lambda: model, choice))
    return on_first_rank(lambda: _write(context, name, lambda: whole_adapted(context), choice))


def _write(
    context: Context, name: str, adapted: Callable[[], Any], choice: PhiChoice | None
) -> dict[str, Any]:
    with replaced_folder(context.folder.model) as folder:
        whole = _write_model(context, adapted, choice, folder)
        for file in context.stage_folder("tokenizer").glob(SENTENCEPIECE_NAME):
            shutil.copy(file, folder)
    value = choice.to_json() if choice else {"phi": None}
    write_json(context.stage_folder(name) / "phi.json", value)
    line = "no adapter in the recipe: nothing to choose"
    if choice:
        line = f"phi {choice.value:.3g}, best factor [{choice.low:.3g}, {choice.high:.3g}]"
        line += f"; {cost}" if (cost := choice.cost()) else ""
        line += "; at the edge of correct.grid: try a wider grid" * choice.at_edge
        line += heldout_note(context, "tune")
        line += "; too little tune text for an interval" * (not choice.has_interval)
    return {"phi": value["phi"], "loaded_whole": whole, "line": line}


def _write_model(
    context: Context, adapted: Callable[[], Any], choice: PhiChoice | None, folder: Path
) -> str | None:
    """Write the merged model, from files where possible, else from that of `adapted`.

    Returns why it was not possible, or None.
    """
    try:
        write_final(context, choice.value if choice else None, folder)
        return None
    except NotStreamed as reason:
        cfg, model = context.cfg, adapted()
        if choice:
            model = merge_adapter(model, choice.value)
        save_model(model, tokenizer_to_save(context), folder, DTYPES[cfg.train.precision])
        return str(reason)


def _choose(context: Context, model: PeftModel, base: np.ndarray | None) -> PhiChoice:
    """Search for phi on the tune documents by scaling the LoRA layers.

    `base` are the nats of the base model on the source documents, for the rule `weighted`.
    """
    cfg = context.cfg
    texts = [_tune(context, language) for language in LANGUAGES]
    sizes = [np.array([len(text.encode()) for text in own]) for own in texts]
    target, source = _losses(context, model, texts)
    assert target is not None  # the corpus stage leaves at least one tune document
    return choose_phi(target, source, (sizes[0], sizes[1]), cfg.correct, cfg.seed, base)


def _losses(context: Context, model: PeftModel, texts: list[list[str]]) -> list[Losses | None]:
    """Return the nats of each document by factors, one function per language; None without text.

    The factors of one call are scored together, so that there are batches for many ranks.
    """
    cfg = context.cfg
    tokenizer = agreed(lambda: load_tokenizer(context.stage_folder("tokenizer"), cfg.model))
    rows = vocabulary_rows(model)
    first = first_token(tokenizer, rows)
    encode = encoder(tokenizer, cfg.tokenizer.special_strings, rows)

    def losses(sequences: list[list[int]], phis: Sequence[float]) -> list[np.ndarray]:
        scorings = [
            document_scoring(model, sequences, cfg.evaluation, first, partial(scaled, model, phi))
            for phi in phis
        ]
        return score(model, scorings, cfg.evaluation.batch_tokens)

    return [partial(losses, encode(own)) if own else None for own in texts]


def _tune(context: Context, language: str) -> list[str]:
    return agreed(lambda: heldout(context, language, "tune"))


def _base_nll(context: Context) -> np.ndarray | None:
    """Return the nats of the base model on the source tune documents, float64 (documents,).

    None if there are none.
    """
    cfg, texts = context.cfg, _tune(context, "source")
    if not texts:
        return None
    with model_at(context, "base") as model:
        tokenizer = agreed(lambda: load_tokenizer(context.base, cfg.model))
        rows = vocabulary_rows(model)
        encode = encoder(tokenizer, cfg.tokenizer.special_strings, rows)
        return document_nll(model, encode(texts), cfg.evaluation, first_token(tokenizer, rows))

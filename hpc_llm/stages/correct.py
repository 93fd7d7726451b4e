"""Stage `correct`: choose the merging factor phi on held-out text, then merge the model."""

import shutil
from typing import Any

import numpy as np
from peft import PeftModel

from hpc_llm.evaluation.bits_per_byte import document_nll
from hpc_llm.evaluation.lora_scale import scaled
from hpc_llm.evaluation.merging_factor import PhiChoice, choose_phi
from hpc_llm.pipeline.context import Context
from hpc_llm.rundir import replaced_folder, write_json
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.stages.assemble import model_after, open_adapter
from hpc_llm.stages.texts import encoder, first_token, heldout, heldout_note
from hpc_llm.surgery.loading import DTYPES, load_tokenizer
from hpc_llm.surgery.merge import merge_adapter, save_model
from hpc_llm.tokenizer.export import SENTENCEPIECE_NAME

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write correct/phi.json (the curve and the chosen phi) and model/, the result of the run."""
    cfg = context.cfg
    model = open_adapter(context)
    tokenizer = load_tokenizer(context.stage_folder("tokenizer"), cfg.model)
    choice = _choose(context, model, tokenizer) if isinstance(model, PeftModel) else None
    if isinstance(model, PeftModel) and choice:
        model = merge_adapter(model, choice.value)
    with replaced_folder(context.folder.model) as folder:
        save_model(model, tokenizer, folder, DTYPES[cfg.train.precision])
        shutil.copy(context.stage_folder("tokenizer") / SENTENCEPIECE_NAME, folder)
    value = choice.to_json() if choice else {"phi": None}
    write_json(context.stage_folder(name) / "phi.json", value)
    line = "no adapter in the recipe: nothing to choose"
    if choice:
        line = f"phi {choice.value:.3g}, best factor [{choice.low:.3g}, {choice.high:.3g}]"
        line += f"; {cost}" if (cost := choice.cost()) else ""
        line += "; at the edge of correct.grid: try a wider grid" * choice.at_edge
        line += heldout_note(context, "tune")
        line += "; too little tune text for an interval" * (not choice.has_interval)
    return {"phi": value["phi"], "line": line}


def _choose(context: Context, model: Any, tokenizer: Any) -> PhiChoice:
    """Search for phi on the tune documents by scaling the LoRA layers."""
    cfg, first = context.cfg, first_token(tokenizer)
    encode = encoder(tokenizer, cfg.tokenizer.special_strings)
    losses, sizes = [], []
    for language in LANGUAGES:
        texts = heldout(context, language, "tune")
        ids = encode(texts) if texts else []

        def loss(phi: float, ids: list[list[int]] = ids) -> np.ndarray:
            with scaled(model, phi):
                return document_nll(model, ids, cfg.evaluation, first)

        losses.append(loss if texts else None)
        sizes.append(np.array([len(text.encode()) for text in texts]))
    target, source = losses
    assert target is not None  # the corpus stage leaves at least one tune document
    base = _base_nll(context) if cfg.correct.rule == "weighted" and source is not None else None
    return choose_phi(target, source, (sizes[0], sizes[1]), cfg.correct, cfg.seed, base)


def _base_nll(context: Context) -> np.ndarray:
    """Return the nats of the base model on the source tune documents, float64 (documents,)."""
    cfg = context.cfg
    model, tokenizer = model_after(context, "base"), load_tokenizer(context.base, cfg.model)
    rows = model.get_input_embeddings().weight.shape[0]
    encode = encoder(tokenizer, cfg.tokenizer.special_strings, rows)
    ids = encode(heldout(context, "source", "tune"))
    return document_nll(model, ids, cfg.evaluation, first_token(tokenizer, rows))

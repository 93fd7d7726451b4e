"""Stage `train/<name>` from scratch: pre-train a base model on the source text.

For the embedded example and for models with a configuration but no weights. The same training loop
runs on an untrained model with its own vocabulary.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hpc_llm.accounting import context_length
from hpc_llm.corpus import read_texts
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import point_of
from hpc_llm.rundir import replaced_folder, write_json
from hpc_llm.stages.reader import TrainingText
from hpc_llm.stages.texts import shares_of, text_file, training_text
from hpc_llm.stages.training import train_stage, training_result
from hpc_llm.surgery.loading import DTYPES, build_model, load_tokenizer
from hpc_llm.surgery.merge import save_model
from hpc_llm.surgery.shards import WEIGHTS, weight_files
from hpc_llm.tokenizer.encode import encode_shards
from hpc_llm.tokenizer.export import export_fast
from hpc_llm.tokenizer.specials import SpecialTokens
from hpc_llm.tokenizer.unigram import MODEL_NAME, train_vocabulary
from hpc_llm.training import process_group
from hpc_llm.training.checkpoints.folder import drop_all_but_best
from hpc_llm.training.zero import division_config

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write train/<name>/model/: a model folder with its own tokenizer."""
    folder = context.stage_folder(name)
    result = _pretrain(context, point_of(name), folder)
    if context.ranks.is_first:
        write_json(folder / "done.json", result)
    return result


def _pretrain(context: Context, name: str, folder: Path) -> dict[str, Any]:
    cfg = context.cfg
    architecture = cfg.model.architecture
    assert architecture  # the pipeline has checked it
    work = folder / "vocabulary"
    if context.ranks.is_first:
        _vocabulary(context, cfg.text_of(name).names, work, architecture)
    process_group.barrier()
    tokenizer = load_tokenizer(work, cfg.model)
    divided = division_config(cfg.train, cfg.zero, context.ranks)
    model = build_model(architecture, len(tokenizer), cfg.seed, divided)
    shares = {work / text: share for text, share in shares_of(context, name).items()}
    text = TrainingText(vocabulary=work / MODEL_NAME, shares=shares)
    trained, spec, flops = train_stage(context, name, model, text, folder)
    if context.ranks.is_first:
        # load the stored weights into an empty model: under ZeRO-3 the trained one has no weights
        with torch.device("meta"):
            model = build_model(architecture, len(tokenizer), cfg.seed)
        model.load_state_dict(trained.weights, strict=False, assign=True)
        model.tie_weights()  # a tied head has no separate entry
        model.config.bos_token_id = tokenizer.bos_token_id
        model.config.eos_token_id = tokenizer.eos_token_id
        with replaced_folder(folder / "model") as result:
            save_model(model, tokenizer, result, DTYPES[cfg.train.precision])
        for file in weight_files(folder, WEIGHTS):  # the same weights as those of the model
            file.unlink()
        drop_all_but_best(folder / "checkpoints")
    process_group.barrier()
    return training_result(spec, flops, trained, text)


def _vocabulary(
    context: Context, texts: list[str], work: Path, architecture: dict[str, Any]
) -> None:
    """Train the base model's own vocabulary and encode all `texts`.

    It is trained on the first of them, or on all sources in its languages.
    """
    cfg = context.cfg
    main: Iterable[str] = read_texts(text_file(context, texts[0], "train"))
    if texts[0] in cfg.corpus.texts_in("source"):
        main = training_text(context, "source")
    settings = replace(cfg.tokenizer, vocab_size=architecture["vocab_size"], source_share=0.0)
    specials = SpecialTokens(unk="<unk>", bos="<s>", eos="</s>", pad=None, additional=())
    with replaced_folder(work) as folder:
        model_file = train_vocabulary(main, [], settings, specials, cfg.seed, folder)
        positions = context_length(architecture)
        kind = architecture["model_type"]
        fast = export_fast(model_file, None, specials, positions, folder, kind)
        tokens = fast if settings.special_strings == "tokens" else None
        threads = cfg.tokenizer.threads
        for text in texts:
            file = text_file(context, text, "train")
            encode_shards(read_texts(file), model_file, folder / text, threads, tokens)

"""Stage `tokenizer`: train a new tokenizer for the language and encode the training text."""

from dataclasses import asdict
from typing import Any

from hpc_llm.corpus import read_texts
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import training_texts
from hpc_llm.rundir import replaced_folder
from hpc_llm.stages.texts import encoder, heldout, text_file
from hpc_llm.surgery.loading import load_tokenizer, model_type
from hpc_llm.tokenizer.encode import encode_shards
from hpc_llm.tokenizer.export import export_fast
from hpc_llm.tokenizer.measures import compare
from hpc_llm.tokenizer.specials import special_tokens_of
from hpc_llm.tokenizer.unigram import train_vocabulary

__all__ = ["run"]


def run(context: Context, name: str) -> dict[str, Any]:
    """Write tokenizer/: the vocabulary, the fast tokenizer and the shards of the training text."""
    cfg = context.cfg
    base = load_tokenizer(context.base, cfg.model)
    specials = special_tokens_of(base)
    source = text_file(context, "source", "train")
    with replaced_folder(context.stage_folder(name)) as folder:
        model_file = train_vocabulary(
            read_texts(text_file(context, "target", "train")),
            read_texts(source) if source.exists() else [],
            cfg.tokenizer,
            specials,
            cfg.seed,
            folder,
        )
        kind = model_type(context.base, cfg.model)
        new = export_fast(model_file, base, specials, base.model_max_length, folder, kind)
        (folder / "shards").mkdir()
        shards = {
            text: encode_shards(
                read_texts(text_file(context, text, "train")),
                model_file,
                folder / "shards" / text,
                cfg.tokenizer.threads,
                new if cfg.tokenizer.special_strings == "tokens" else None,
            )
            for text in training_texts(cfg)
        }
        texts = heldout(context, "target", "tune")
        old_ids, new_ids = (encoder(each, cfg.tokenizer.special_strings) for each in (base, new))
        measures = compare(old_ids, new_ids, texts, new.decode)
    line = (
        f"{len(new):,} tokens; tokens per word {measures['old']['tokens_per_word']:.2f} -> "
        f"{measures['new']['tokens_per_word']:.2f}; {shards['target'].tokens:,} training tokens"
    )
    return {
        "vocab_size": len(new),
        "old_vocab_size": len(base),
        **measures,
        **asdict(shards["target"]),
        "replayed": asdict(shards["source"]) if "source" in shards else None,
        "texts": {text: asdict(counts) for text, counts in shards.items()},
        "line": line,
    }

"""Stage `evaluate/tokenizer`: measures of the old and the new tokenizer on equal held-out text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hpc_llm.corpus import read_texts
from hpc_llm.corpus.parallel import read_parallel
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tokenizers import (
    Tokenizer,
    boundary_measures,
    parity_measures,
    rare_measure,
    text_measures,
)
from hpc_llm.pipeline.context import Context
from hpc_llm.pipeline.table import training_texts
from hpc_llm.rundir import write_json
from hpc_llm.settings.corpus import LANGUAGES
from hpc_llm.stages.texts import encoder, heldout, text_file, training_text
from hpc_llm.surgery.loading import load_tokenizer
from hpc_llm.tokenizer.encode import count_ids, encode_shards
from hpc_llm.tokenizer.export import export_fast
from hpc_llm.tokenizer.lexicon import boundary_counts, read_lexicon
from hpc_llm.tokenizer.measures import count_tokens
from hpc_llm.tokenizer.specials import special_tokens_of
from hpc_llm.tokenizer.text import Encode, span_encoder
from hpc_llm.tokenizer.unigram import train_vocabulary

__all__ = ["run"]

LINE = ("tokens_per_word", "tokens_per_character")  # the first that the text allows


def run(context: Context, name: str) -> dict[str, Any]:
    """Write evaluate/tokenizer.json: measures of the new tokenizer, and of all by column."""
    with _tokenizers(context) as (tokenizers, seen):
        columns = _measure(context, tokenizers, seen)
        sizes = {column: len(tokenizer) for column, tokenizer in tokenizers.items()}
    result = {"measures": columns["new"], "tokenizers": columns, "vocab_sizes": sizes}
    result["line"] = _line(columns)
    write_json(context.folder.path / f"{name}.json", result)
    return result


@contextmanager
def _tokenizers(context: Context) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Yield the tokenizers by column, and how often training text has each token of the new ones.

    Those of `tokenizer.compare` exist only inside the block.
    """
    cfg, folder = context.cfg, context.stage_folder("tokenizer")
    base = load_tokenizer(context.base, cfg.model)
    found = {"old": base, "new": load_tokenizer(folder, cfg.model)}
    shards = [folder / "shards" / text for text in training_texts(cfg)]
    seen = {"new": count_ids(shards, _ids(found["new"]))}
    with TemporaryDirectory(dir=context.folder.path) as scratch:
        for kind in cfg.tokenizer.compare:
            found[kind], seen[kind] = _trained(context, kind, base, Path(scratch) / kind)
        yield found, seen


def _trained(context: Context, kind: str, base: Any, folder: Path) -> tuple[Any, np.ndarray]:
    """Train a vocabulary of another type on the text of the new one; return it and its counts."""
    cfg = context.cfg
    settings, specials = replace(cfg.tokenizer, model_type=kind), special_tokens_of(base)
    target, source = (training_text(context, language) for language in LANGUAGES)
    model_file = train_vocabulary(target, source, settings, specials, cfg.text_seed, folder)
    tokenizer = export_fast(model_file, base, specials, None, folder)
    shards = [folder / "shards" / text for text in training_texts(cfg)]
    for prefix in shards:
        texts = read_texts(text_file(context, prefix.name, "train"))
        encode_shards(texts, model_file, prefix, cfg.tokenizer.threads)
    return tokenizer, count_ids(shards, _ids(tokenizer))


def _ids(tokenizer: Any) -> int:
    """Return the number of ids up to the highest of a token."""
    return max(tokenizer.get_vocab().values()) + 1


def _measure(
    context: Context, tokenizers: Mapping[str, Any], seen: Mapping[str, np.ndarray]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the measures of each tokenizer by name, as dictionaries."""
    cfg, texts = context.cfg, heldout(context, "target", "tune")
    encoders = {name: encoder(t, cfg.tokenizer.special_strings) for name, t in tokenizers.items()}
    counts = {name: count_tokens(encoders[name], texts, t.decode) for name, t in tokenizers.items()}
    columns = {}
    for name, tokenizer in tokenizers.items():
        one = Tokenizer(vocab_size=len(tokenizer), counts=counts[name])
        found = text_measures(one, counts["old"], cfg.seed)
        if name in seen:
            found |= rare_measure(seen[name])
        found |= _boundaries(context, tokenizer) | _parity(context, encoders[name])
        columns[name] = {key: measure.as_dict() for key, measure in found.items()}
    return columns


def _boundaries(context: Context, tokenizer: Any) -> dict[str, Measure]:
    path, spans = context.cfg.tokenizer.lexicon, span_encoder(tokenizer)
    if path is None or spans is None:
        return {}
    return boundary_measures(boundary_counts(spans, read_lexicon(Path(path))), context.cfg.seed)


def _parity(context: Context, encode: Encode) -> dict[str, Measure]:
    cfg = context.cfg
    if not cfg.tokenizer.parity:
        return {}
    texts = read_parallel("tokenizer.parity", cfg.tokenizer.parity, cfg.corpus)
    tokens = {lang: np.array([len(ids) for ids in encode(found)]) for lang, found in texts.items()}
    return parity_measures(tokens, cfg.seed)


def _line(columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    measure = next(name for name in LINE if name in columns["new"])
    values = [f"{name} {column[measure]['value']:.3f}" for name, column in columns.items()]
    return f"{measure.replace('_', ' ')}: {', '.join(values)}"

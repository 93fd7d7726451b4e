"""The training text of a stage: its shards, their shares, and their reader."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_llm.settings import RunConfig
from hpc_llm.tokenizer.encode import open_shards
from hpc_llm.tokenizer.shard_files import check_shards
from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.data.mixture import MixedReader, Reader
from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader, count_bytes

__all__ = ["TrainingText", "open_reader"]


@dataclass(frozen=True, kw_only=True)
class TrainingText:
    """Token shards of one or several texts."""

    vocabulary: Path
    """The sentencepiece model that encoded them."""
    shares: Mapping[Path, float]
    """Shares of the tokens by the prefix of the shards, the main text first."""


def open_reader(cfg: RunConfig, text: TrainingText, plan: BatchPlan, rows: int) -> Reader:
    """Return the reader of `text` for a model of `rows` embeddings.

    Raises `UserError` for shards that are incomplete, have changed or use another vocabulary.
    """
    unit = plan.rows if cfg.train.batching == "grouped" else None
    readers = []
    for prefix in text.shares:
        data = check_shards(prefix, text.vocabulary, rows)
        key = RowKey(plan.sequence_length, cfg.seed, unit, data)
        readers.append(PackedReader(open_shards(prefix), count_bytes(prefix), key))
    return MixedReader(readers, list(text.shares.values()), cfg.seed) if readers[1:] else readers[0]

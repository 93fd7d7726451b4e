"""The training text of a stage: its shards, their shares, and their reader."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpc_llm.distributed import Ranks
from hpc_llm.settings import RunConfig
from hpc_llm.stages.row_index import open_rows
from hpc_llm.tokenizer.encode import open_shards
from hpc_llm.tokenizer.shard_files import check_shards
from hpc_llm.training.data.batches import BatchPlan
from hpc_llm.training.data.index import RowIndex
from hpc_llm.training.data.mixture import MixedReader, Reader
from hpc_llm.training.data.packing import RowKey
from hpc_llm.training.data.shards import PackedReader, count_bytes

__all__ = ["TrainingText", "open_reader"]


@dataclass(frozen=True, kw_only=True)
class TrainingText:
    """Token shards of one or several texts."""

    vocabulary: Path
    """The vocabulary file of the tokenizer that encoded them."""
    shares: Mapping[Path, float]
    """Shares of the tokens by the prefix of the shards, the main text first."""
    shared: Path | None = None
    """Folder in the shared cache for the indexes of their rows."""

    def portions(self, reader: Reader, first: int, end: int) -> dict[str, dict[str, float]]:
        """Return share, rows and epochs of each text in the rows `first` to `end` of a mixture."""
        if not isinstance(reader, MixedReader):
            return {}
        counts = zip(reader.rows_of_each(first), reader.rows_of_each(end), strict=True)
        return {
            prefix.name: {
                "share": share,
                "rows": after - before,
                "epochs": (after - before) / own.rows_per_epoch,
            }
            for (prefix, share), own, (before, after) in zip(
                self.shares.items(), reader.readers, counts, strict=True
            )
        }


def open_reader(
    cfg: RunConfig, text: TrainingText, plan: BatchPlan, rows: int, ranks: Ranks
) -> Reader:
    """Return the reader of `text` for a model of `rows` embeddings (collective).

    Raises `UserError` for shards that are incomplete, have changed or use another vocabulary.
    """
    unit = plan.rows if cfg.train.batching == "grouped" else None
    readers = []
    for prefix in text.shares:
        data = check_shards(prefix, text.vocabulary, rows)
        key = RowKey(plan.sequence_length, cfg.seed, unit, data)
        readers.append(_reader(prefix, key, ranks, text.shared))
    return MixedReader(readers, list(text.shares.values()), cfg.seed) if readers[1:] else readers[0]


def _reader(prefix: Path, key: RowKey, ranks: Ranks, shared: Path | None) -> PackedReader:
    documents = open_shards(prefix)
    index = RowIndex.beside(prefix, key, len(documents))
    found = open_rows(index, documents.sizes, lambda: count_bytes(prefix), ranks, shared)
    packing, text_bytes = found or (None, count_bytes(prefix))
    return PackedReader(documents, text_bytes, key, packing)

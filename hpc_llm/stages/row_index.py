"""Open the index of a text's rows, which the ranks build together if there is none.

It is beside the token shards, so all stages and starts of a run use it. Runs that link the shards
from the shared cache link their indexes, too: they are kept with the entry of the shards' stage.
"""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import numpy as np

from hpc_llm.distributed import Ranks, say
from hpc_llm.pipeline.cache import link_folder
from hpc_llm.rundir import temporary_beside
from hpc_llm.training import process_group
from hpc_llm.training.data.index import RowIndex
from hpc_llm.training.data.packing import Packing

__all__ = ["open_rows"]

MANY = 1_000_000  # documents that take some seconds to pack


def open_rows(
    index: RowIndex,
    lengths: np.ndarray,
    text_bytes: Callable[[], int],
    ranks: Ranks,
    shared: Path | None = None,
) -> tuple[Packing, int] | None:
    """Return the rows of a text and its UTF-8 bytes; None if they must be computed (collective).

    `lengths` are the tokens of its documents. Rank 0 verifies the index. A damaged one, or one of
    another text, is built again. Every rank packs a share of a new one. `shared` is the folder in
    the shared cache for indexes of this text.
    """
    found = process_group.on_first_rank(lambda: _is_valid(index) or _linked(index, shared))
    if not found:
        if not _build(index, lengths, text_bytes, ranks):
            return None
        process_group.on_first_rank(lambda: _share(index, shared))
    try:
        return index.open()
    except (OSError, ValueError) as error:
        say(f"{index.path}: {error}; packing in memory")
        return None


def _is_valid(index: RowIndex) -> bool:
    problem = index.problem()
    if problem:
        say(f"{index.path}: {problem}; building the index of rows again")
    return problem == ""


def _linked(index: RowIndex, shared: Path | None) -> bool:
    """Link a valid index from the shared cache; return False if there is none."""
    if shared is None or not (shared / index.path.name).is_dir():
        return False
    problem = _system_error(index.path, lambda: link_folder(shared / index.path.name, index.path))
    return not problem and _is_valid(index)


def _share(index: RowIndex, shared: Path | None) -> None:
    """Add a new index to the shared cache, if the entry of the text's stage exists."""
    if shared is not None and shared.parent.is_dir():
        problem = _system_error(shared, lambda: link_folder(index.path, shared / index.path.name))
        if problem:
            say(f"{problem}: the index of rows is not in the shared cache")


def _build(
    index: RowIndex, lengths: np.ndarray, text_bytes: Callable[[], int], ranks: Ranks
) -> bool:
    """Build the index; report why and return False if its folder cannot be written."""
    if len(lengths) >= MANY:
        say(f"packing {len(lengths):,} documents, once for all starts: {index.path}")
    work = Path(process_group.on_first_rank(lambda: str(temporary_beside(index.path))))
    shares = ranks.world_size

    def begin() -> None:
        work.mkdir()
        index.begin(work, lengths)

    def write_part() -> None:
        index.write_part(work, lengths, ranks.rank, shares)

    def finish() -> None:
        index.finish(work, shares, text_bytes)

    try:
        problem = process_group.on_first_rank(lambda: _system_error(work, begin))
        if not problem:
            every = process_group.all_texts(_system_error(work, write_part))
            problem = next(filter(None, every), "")
        if not problem:
            problem = process_group.on_first_rank(lambda: _system_error(index.path, finish))
    finally:
        if ranks.is_first:
            rmtree(work, ignore_errors=True)
    if problem:
        say(f"{problem}: the order of rows is not stored; every start packs the text in memory")
    return not problem


def _system_error(path: Path, work: Callable[[], None]) -> str:
    """Run `work` for `path`; return the system error that ended it, "" if none did."""
    try:
        work()
    except OSError as error:
        return f"{error.filename or path}: {error.strerror or error}"
    return ""

"""The order of a text's rows on disk: computed once, memory-mapped by every rank of every start.

The folder `.TEXT-FINGERPRINT/` beside the token shards holds the segments in the order of the rows,
the offsets of the rows, and `index.json`: the key, the sums over all rows, and sizes and hashes of
the files. It is derived data, not part of a stage's result: without it the rows are computed again,
in the same order.

Any number of processes build it, in three steps: `begin` shuffles the documents, `write_part` packs
a share of the windows, `finish` joins the parts. The bytes do not depend on their number, and
beside the shuffled order a process holds a window at a time.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_llm.errors import UserError
from hpc_llm.rundir import (
    find_damage,
    fingerprint,
    read_json,
    replaced_folder,
    system_errors,
    write_json,
)
from hpc_llm.rundir.checksums import HashedFile, sealed, unsealed
from hpc_llm.training.data.packing import Packing, RowKey, Totals, parts, totals
from hpc_llm.training.data.segments import BLOCK, PIECE, Segments

__all__ = ["RowIndex"]

LAYOUT = 1
DESCRIPTION, PIECES, OFFSETS = "index.json", "pieces.bin", "offsets.bin"


@dataclass(frozen=True)
class RowIndex:
    """The index of one text, whether it exists or not."""

    path: Path
    identity: dict[str, Any]
    """The key, and what else decides about the rows."""
    key: RowKey

    @classmethod
    def beside(cls, prefix: Path, key: RowKey, documents: int) -> "RowIndex":
        """Return the index for `key` of the token shards at `prefix`, of so many documents.

        Another version of numpy may shuffle differently, so it is part of the identity.
        """
        versions = {"layout": LAYOUT, "numpy": np.__version__}
        identity = {**versions, "documents": documents, **asdict(key)}
        path = prefix.with_name(f".{prefix.name}-{fingerprint(identity)}")
        return cls(path, identity, key)

    def problem(self) -> str | None:
        """Return what is wrong with the index; "" if nothing is, None if there is none.

        Verifies the hashes of its files.
        """
        if not self.path.exists():
            return None
        try:
            description = self._description()
        except (OSError, ValueError) as error:
            return str(error)
        damage = find_damage(self.path, description["files"])
        return f"{damage[0]}" if damage else ""

    def _description(self) -> dict[str, Any]:
        """Return the content of `index.json`; `ValueError` if it is damaged or of other rows."""
        try:
            found = read_json(self.path / DESCRIPTION)
        except UserError as error:
            raise ValueError(f"{DESCRIPTION} {error.rule}") from error
        plain = unsealed(found, required=True) if isinstance(found, dict) else None
        if plain is None:
            raise ValueError(f"{DESCRIPTION} is damaged: its checksum differs")
        if plain.get("identity") != self.identity:
            raise ValueError("is the index of another text, or of other rows")
        return plain

    def open(self) -> tuple[Packing, int]:
        """Return the rows, memory-mapped, and the UTF-8 bytes of the text.

        Raises `OSError` or `ValueError` if they cannot be read.
        """
        found = self._description()
        rows = self._arrays(self.path)
        return Packing(*rows, Totals(**found["totals"]), self.key.unit or 1), found["bytes"]

    @staticmethod
    def _arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
        # plain arrays over the mapped files: a memmap object takes longer for each access
        offsets = np.asarray(np.memmap(folder / OFFSETS, "<i8", "r"))
        return offsets, np.asarray(np.memmap(folder / PIECES, PIECE, "r"))

    def begin(self, work: Path, lengths: np.ndarray) -> None:
        """Shuffle documents of `lengths` tokens (documents,), into files in the folder `work`."""
        segments = Segments.of(lengths, self.key.capacity, self.key.seed)
        with system_errors(work):
            segments.save(work)

    def write_part(self, work: Path, lengths: np.ndarray, share: int, shares: int) -> None:
        """Pack a share of the text, 0 to `shares` - 1, into files in `work`."""
        segments = Segments.load(work, lengths, self.key.capacity)
        with (
            system_errors(work),
            (work / f"pieces-{share}").open("wb") as pieces,
            (work / f"sizes-{share}").open("wb") as sizes,
        ):
            for some, rows in parts(segments, self.key, share, shares):
                pieces.write(some.tobytes())
                sizes.write(rows.astype("<u4").tobytes())

    def finish(self, work: Path, shares: int, text_bytes: Callable[[], int]) -> None:
        """Join the parts of all shares; replaces an index that exists."""
        with replaced_folder(self.path) as folder:
            with HashedFile(folder / PIECES) as pieces:
                for part in _blocks(work, "pieces", shares, PIECE):
                    pieces.write(part.tobytes())
            with HashedFile(folder / OFFSETS) as offsets:
                end = np.zeros(1, "<i8")
                offsets.write(end)
                for part in _blocks(work, "sizes", shares, np.dtype("<u4")):
                    ends = end + np.cumsum(part, dtype="<i8")
                    offsets.write(ends)
                    end = ends[-1:]
            description = {
                "identity": self.identity,
                "bytes": text_bytes(),
                "totals": asdict(totals(*self._arrays(folder), self.key)),
                "files": {PIECES: pieces.found, OFFSETS: offsets.found},
            }
            write_json(folder / DESCRIPTION, sealed(description))


def _blocks(work: Path, name: str, shares: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield the values in the files NAME-0, NAME-1, ... in blocks."""
    for share in range(shares):
        with (work / f"{name}-{share}").open("rb") as handle:
            while len(values := np.fromfile(handle, dtype, BLOCK)):
                yield values

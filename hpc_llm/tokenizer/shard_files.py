"""The description of token shards, which verifies them before training starts.

`PREFIX.json` records the vocabulary that the text was encoded with, and size and fingerprint of the
other files. Large files are sampled, so that verification takes a second for any corpus size.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint, fingerprint_path, read_json, write_json

__all__ = ["ENDINGS", "check_shards", "describe_shards", "part"]

ENDINGS = (".bin", ".bytes.npy", ".idx")


def part(prefix: Path, ending: str) -> Path:
    """Return the path of one of the files of a shard."""
    return prefix.with_name(prefix.name + ending)


@dataclass(frozen=True, kw_only=True)
class _Description:
    pieces: int
    """Size of the vocabulary."""
    vocabulary: str
    """Fingerprint of the vocabulary file."""
    sizes: dict[str, int]
    """Bytes of the files, by their extension."""
    data: str
    """Fingerprint of the files' content."""


def describe_shards(files: dict[str, Path], vocabulary: Path, pieces: int, target: Path) -> None:
    """Write the description of a shard's `files` (by extension) to `target`."""
    description = _Description(
        pieces=pieces,
        vocabulary=fingerprint_path(vocabulary),
        sizes={ending: files[ending].stat().st_size for ending in ENDINGS},
        data=_data_fingerprint(files),
    )
    write_json(target, asdict(description))


def _data_fingerprint(files: dict[str, Path]) -> str:
    return fingerprint([fingerprint_path(files[ending], times=False) for ending in ENDINGS])


def check_shards(prefix: Path, vocabulary: Path, rows: int) -> str:
    """Return the fingerprint of the shards at `prefix`, for a model with `rows` embeddings.

    Raises `UserError` where they are incomplete, have changed, or were encoded with another
    vocabulary than `vocabulary`, or one of more tokens than the model has embeddings.
    """
    fix = f"remove {prefix.parent} and run hpc-llm adapt again to re-encode the text"
    try:
        known = _Description(**read_json(part(prefix, ".json")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(str(prefix), None, "token shards are missing or incomplete", fix) from error
    files = {ending: part(prefix, ending) for ending in ENDINGS}
    for ending, path in files.items():
        size = path.stat().st_size if path.exists() else 0
        if size != known.sizes[ending]:
            rule = f"has {size:,} bytes, {known.sizes[ending]:,} were written"
            raise UserError(str(path), None, rule, fix)
    if _data_fingerprint(files) != known.data:
        rule = "the shards have changed since the text was encoded"
        raise UserError(str(prefix), None, rule, fix)
    if fingerprint_path(vocabulary) != known.vocabulary:
        rule = f"was encoded with another vocabulary ({known.pieces:,} tokens) than {vocabulary}"
        raise UserError(str(prefix), None, rule, fix)
    if known.pieces > rows:
        rule = (
            f"its vocabulary has {known.pieces:,} tokens, the model only {rows:,} embeddings: the "
            "model has another vocabulary"
        )
        fix = "start again with the model of the stage transplant"
        raise UserError(str(prefix), None, rule, fix)
    return known.data

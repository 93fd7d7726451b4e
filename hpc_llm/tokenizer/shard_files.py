"""What stands beside token shards, so that wrong ones are refused before a step is paid for.

`PREFIX.json` tells the vocabulary that the text was encoded with, and size and fingerprint of the
other files. Large files are sampled, so that checking takes a second however long the text is.
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
    """Fingerprint of the sentencepiece model."""
    sizes: dict[str, int]
    """Bytes of the files, by their ending."""
    data: str
    """Fingerprint of the files' content."""


def describe_shards(
    files: dict[str, Path], sentencepiece_model: Path, pieces: int, target: Path
) -> None:
    """Write to `target` what is to be known of a shard's `files` (by ending)."""
    description = _Description(
        pieces=pieces,
        vocabulary=fingerprint_path(sentencepiece_model),
        sizes={ending: files[ending].stat().st_size for ending in ENDINGS},
        data=_data_fingerprint(files),
    )
    write_json(target, asdict(description))


def _data_fingerprint(files: dict[str, Path]) -> str:
    return fingerprint([fingerprint_path(files[ending], times=False) for ending in ENDINGS])


def check_shards(prefix: Path, sentencepiece_model: Path, rows: int) -> str:
    """Return the fingerprint of the shards at `prefix`, for a model with `rows` embeddings.

    Raises `UserError` where they are not whole, have changed, or were encoded with another
    vocabulary than `sentencepiece_model`, or one of more pieces than the model has rows.
    """
    cure = f"remove {prefix.parent} and run hpc-llm adapt again: it encodes the text anew"
    try:
        known = _Description(**read_json(part(prefix, ".json")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{prefix}: no token shards here, or not whole ones; {cure}") from error
    files = {ending: part(prefix, ending) for ending in ENDINGS}
    for ending, path in files.items():
        size = path.stat().st_size if path.exists() else 0
        if size != known.sizes[ending]:
            raise UserError(
                f"{path}: has {size:,} bytes, not the {known.sizes[ending]:,} that were written; "
                f"{cure}"
            )
    if _data_fingerprint(files) != known.data:
        raise UserError(f"{prefix}: the shards have changed since the text was encoded; {cure}")
    if fingerprint_path(sentencepiece_model) != known.vocabulary:
        raise UserError(
            f"{prefix}: was encoded with another vocabulary (of {known.pieces:,} pieces) than "
            f"{sentencepiece_model}; {cure}"
        )
    if known.pieces > rows:
        raise UserError(
            f"{prefix}: has {known.pieces:,} pieces, the model only {rows:,} rows: it is of "
            "another vocabulary; start again with the model of the stage transplant"
        )
    return known.data

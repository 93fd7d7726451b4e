"""Check model folders without torch, so that a wrong one fails before anything starts.

Read are `config.json`, the names of the tokenizer's files and the headers of the weights.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc_llm.accounting.model_file import read_config
from hpc_llm.errors import UserError
from hpc_llm.surgery.families import check_family

__all__ = ["check_base", "check_model_folder", "linear_names", "tensor_shapes"]

KEY = "model.path"
AGAIN = "copy or download the model again"
TOKENIZERS = (
    *("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt", "vocab.model"),
)
DAMAGED = (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError)
MOST_HEADER = 100_000_000  # bytes, the limit of the safetensors library

Shapes = dict[str, tuple[int, ...]]


def check_model_folder(path: str) -> None:
    """Raise `UserError` if `path` is a local folder without configuration or weights.

    A `path` that is not a local folder is treated as a hub id and left to transformers.
    """
    folder = Path(path).expanduser()
    if not folder.exists():
        if path.count("/") != 1 or path.startswith((".", "/", "~")):
            raise UserError(KEY, path, "no such folder", "use a folder or OWNER/NAME")
        return
    if not (folder / "config.json").is_file():
        raise UserError(KEY, path, "has no config.json", "use a Hugging Face model folder")
    if any(folder.glob("*.safetensors")):
        return
    fix = "use a folder with *.safetensors"
    if any(folder.glob("*.bin")):
        fix = "pickled weights (*.bin) are not loaded; convert them to safetensors"
    raise UserError(KEY, path, "has no weights", fix)


def check_base(path: str) -> Shapes:
    """Raise `UserError` for a base model that cannot be adapted; return its tensors by name.

    Checked are family, tokenizer files, the completeness of the weights and the size of the
    vocabulary. A hub id is not checked: it gives {}.
    """
    check_model_folder(path)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return {}
    config = read_config(folder / "config.json")
    check_family(config, path)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        rule = f"has no tokenizer: none of {', '.join(TOKENIZERS)}"
        raise UserError(KEY, path, rule, "copy the files of its tokenizer into it")
    shapes = tensor_shapes(folder)
    _check_vocabulary(path, config, shapes)
    return shapes


def tensor_shapes(folder: Path) -> Shapes:
    """Return the shapes of all tensors of a model folder, by name, from the headers of its files.

    Raises `UserError` for a file that is damaged or cut off, and for one that the index names and
    the folder lacks.
    """
    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        names = read_config(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise UserError(str(index), None, "weight_map must be a mapping to files", AGAIN)
        files = [folder / name for name in sorted(set(names.values()))]
        for file in files:
            if not file.is_file():
                raise UserError(str(file), None, "is missing; the index names it", AGAIN)
    elif (folder / "model.safetensors").is_file():
        files = [folder / "model.safetensors"]
    return {name: shape for file in files for name, shape in _header(file)}


def _header(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of a safetensors file: 8 bytes of length, then JSON, then data."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if not 0 < length <= min(MOST_HEADER, size - 8):
            raise UserError(str(file), None, "is no safetensors file, or is cut off", AGAIN)
        try:
            header = json.loads(stream.read(length))
            tensors = {k: v for k, v in header.items() if k != "__metadata__"}
            ends = [entry["data_offsets"][1] for entry in tensors.values()]
            found = [(str(k), tuple(map(int, v["shape"]))) for k, v in tensors.items()]
        except (
            ValueError,
            AttributeError,
            KeyError,
            IndexError,
            TypeError,
            RecursionError,
        ) as error:
            raise UserError(str(file), None, "its header is damaged", AGAIN) from error
    if 8 + length + max(ends, default=0) != size:
        rule = f"has {size:,} bytes, its header says {8 + length + max(ends, default=0):,}"
        raise UserError(str(file), None, rule, AGAIN)
    yield from found


def _check_vocabulary(path: str, config: Mapping[str, Any], shapes: Shapes) -> None:
    """Raise `UserError` if no embedding has the rows that `config` says."""
    rows = config.get("vocab_size")
    tables = {
        name: shape
        for name, shape in shapes.items()
        if len(shape) == 2 and _is_token_table(name.rsplit(".", 2)[-2:])
    }
    if rows is None or not tables or any(shape[0] == rows for shape in tables.values()):
        return
    name, shape = max(tables.items(), key=lambda item: item[1][0])
    rule = f"vocab_size={rows} in its config.json, but {name} has {shape[0]} rows"
    raise UserError(KEY, path, rule, f"set vocab_size to {shape[0]} if the weights are right")


def _is_token_table(last: list[str]) -> bool:
    return last in (["embed_tokens", "weight"], ["wte", "weight"], ["word_embeddings", "weight"],
                    ["embed_in", "weight"], ["tok_embeddings", "weight"])  # fmt: skip


def linear_names(shapes: Shapes) -> list[str]:
    """Return the last name parts of the matrices in the layers of a model: its linear layers.

    Names of layers have a number in them; the stacked weights of experts have three dimensions.
    """
    found = set()
    for name, shape in shapes.items():
        parts = name.split(".")
        if len(shape) == 2 and parts[-1] == "weight" and any(part.isdigit() for part in parts):
            found.add(parts[-2])
    return sorted(found)

"""Check model folders without torch, so that a wrong one fails before anything starts.

Read are `config.json`, the names of the tokenizer's files and the headers of the weights.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_llm.accounting.config_keys import check_values
from hpc_llm.accounting.model_file import read_config
from hpc_llm.errors import UserError
from hpc_llm.surgery.families import check_family
from hpc_llm.surgery.headers import tensors_of
from hpc_llm.surgery.hub import cached_folder, names_hub_id
from hpc_llm.tokenizer.files import VOCABULARIES

__all__ = ["check_base", "check_model_folder", "linear_names", "tensor_shapes"]

KEY = "model.path"
AGAIN = "copy or download the model again"

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
FLOATS = ("F64", "F32", "F16", "BF16")

Shapes = dict[str, tuple[int, ...]]


def check_model_folder(path: str) -> None:
    """Raise `UserError` if `path` is a local folder without configuration or weights.

    A `path` that is not a local folder is treated as a hub id and left to transformers.
    """
    folder = Path(os.path.expanduser(path))
    if not folder.exists():
        if not names_hub_id(path):
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


def check_base(path: str, revision: str | None = None) -> Shapes:
    """Raise `UserError` for a base model that cannot be adapted; return its tensors by name.

    Checked are family, tokenizer files, the completeness of the weights and the size of the
    vocabulary. Of a hub id only the configuration is checked, if it is in the cache: it gives {}.
    """
    check_model_folder(path)
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        cached = cached_folder(path, revision)
        if cached is not None and (cached / "config.json").is_file():
            _check_config(read_config(cached / "config.json"), path)
        return {}
    config = read_config(folder / "config.json")
    _check_config(config, path)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        rule = f"has no tokenizer: none of {', '.join(VOCABULARIES)}"
        raise UserError(KEY, path, rule, "copy the files of its tokenizer into it")
    _check_tokenizer(folder / "tokenizer.json")
    shapes = tensor_shapes(folder)
    _check_vocabulary(path, config, shapes)
    return shapes


def _check_config(config: Mapping[str, Any], path: str) -> None:
    check_family(config, path)
    check_values(config)
    for name in SIZES:
        if isinstance(size := config.get(name), int) and size < 1:
            raise UserError(f"config.json: {name}", size, "must be 1 or above", "use its own file")


def _check_tokenizer(file: Path) -> None:
    """Raise `UserError` for a `tokenizer.json` that cannot be read; there may be none."""
    if not file.exists():
        return
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        text = " ".join(str(error).split())
        rule = f"is no tokenizer ({text})"
        raise UserError(str(file), None, rule, "use the tokenizer's own file") from error


def tensor_shapes(folder: Path) -> Shapes:
    """Return the shapes of all tensors of a model folder, by name, from the headers of its files.

    Raises `UserError` for a file that the index names and the folder lacks, and for one that is cut
    off or damaged.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(read_config(index)["weight_map"].values()))
    elif not (folder / names[0]).is_file():
        names = sorted(file.name for file in folder.glob("*.safetensors"))
    shapes: Shapes = {}
    for file in (folder / name for name in names):
        if not file.is_file():
            raise UserError(str(file), None, f"is missing; {index.name} names it", AGAIN)
        for name, (kind, shape) in tensors_of(file).items():
            shapes[name] = shape
            if name.endswith(".weight") and kind not in FLOATS:
                rule = f"{name} has numbers of type {kind}"
                raise UserError(str(file), None, rule, "use the model before its quantisation")
    return shapes


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

    Names of layers have a number in them. [] for a mixture of experts, whose weights transformers
    renames on loading.
    """
    found: set[str] = set()
    if any("experts." in name for name in shapes):
        return []
    for name, shape in shapes.items():
        parts = name.split(".")
        if len(shape) == 2 and parts[-1] == "weight" and any(part.isdigit() for part in parts):
            found.add(parts[-2])
    return sorted(found)

"""Check that a model folder holds data only, before any of its files reaches transformers.

A model folder is downloaded from others. Some keys of its JSON files make transformers run code of
the folder, or fetch and run code of another repository; a file named `model.safetensors` may be a
pickle. What decides which code runs is set here, or refused: nothing is left to the folder.

Needs no torch, so that a job is refused on the login node.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir import bounded_json
from hpc_llm.settings import ModelSettings
from hpc_llm.surgery.families import causal_families
from hpc_llm.surgery.headers import tensors_of
from hpc_llm.surgery.hub import cached_folder

__all__ = ["check_model_files"]

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"
ADAPTER = "adapter_config.json"
PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # read tokenizer.json
PLAIN_ATTENTION = (
    None,
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
)
"""Values without a kernel of the hub; `model.attention` replaces them."""
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
PLAIN_EXPERTS = (None, "eager", "batched_mm", "grouped_mm")
QUANTISED = ("quantization_config", "compression_config")
FETCHED_GENERATION: dict[str, tuple[Any, ...]] = {
    "penalty_alpha": (None, 0),
    "dola_layers": (None,),
    "num_beam_groups": (None, 1),
    "constraints": (None, []),
    "force_words_ids": (None, []),
    "custom_generate": (None,),
}
"""Keys of `generation_config.json` for which transformers runs code of the hub, and values for
which it does not."""
SAFETENSORS_NAME = re.compile(r"[\w.-]+\.safetensors(\.index\.json)?", re.ASCII)


def check_model_files(path: str, settings: ModelSettings, *, fetch: bool = False) -> None:
    """Raise `UserError` if the files of a model would run code, or are no safetensors.

    `path` is a folder in the Hugging Face layout, or a hub id: then the files in the local cache of
    the hub are checked; with `fetch` the JSON files are downloaded first. With
    `settings.trust_remote_code` code is allowed, pickles are not.
    """
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        cached = cached_folder(path, settings.revision, fetch=fetch)
        if cached is None:
            return
        folder = cached
    _check_weights(folder)
    if (folder / ADAPTER).is_file():
        rule = "holds an adapter beside the model, which would be loaded into it"
        raise UserError(str(folder / ADAPTER), None, rule, "merge the adapter, or remove its files")
    if settings.trust_remote_code:
        return
    _check_config(folder)
    _check_generation(folder / GENERATION)
    _check_shipped_code(folder)


def _check_weights(folder: Path) -> None:
    """Check that every weights file is a complete safetensors file, and what the indexes name."""
    for file in sorted(folder.glob("*.safetensors")):
        if not file.is_file():
            raise UserError(str(file), None, "is no file", "download it again")
        tensors_of(file)
    for index in sorted(folder.glob("*.index.json")):
        if not index.name.endswith(".safetensors.index.json"):
            continue  # of pickled weights, which are not loaded
        names = bounded_json(index).get("weight_map")
        if not isinstance(names, dict):
            raise UserError(str(index), None, "has no weight_map", "use the original file")
        for name in sorted({str(name) for name in names.values()}):
            _check_name(index, name)


def _check_name(source: Path, name: str) -> None:
    if not SAFETENSORS_NAME.fullmatch(name):
        rule = f"names {name!r}; weights are read from *.safetensors in the same folder only"
        raise UserError(str(source), None, rule, "convert the weights to safetensors")


def _check_config(folder: Path) -> None:
    file = folder / CONFIG
    if not file.is_file():
        return
    config = bounded_json(file)
    if (named := config.get("transformers_weights")) is not None:
        _check_name(file, str(named))
    for key, value in _pairs(config):
        if key in QUANTISED and value:
            method = value.get("quant_method") if isinstance(value, dict) else value
            rule = f"the weights are quantised ({method}), and its library may run code of the hub"
            raise UserError(f"{file}: {key}", None, rule, "use the model before its quantisation")
        if found := IMPLEMENTATION.fullmatch(key):
            plain = PLAIN_ATTENTION if found[1] == "attn" else PLAIN_EXPERTS
            for one in value.values() if isinstance(value, dict) else [value]:
                if one not in plain:
                    rule = "names a kernel, which transformers would fetch and run"
                    raise UserError(f"{file}: {key}", one, rule, "remove the key")


def _check_generation(file: Path) -> None:
    if not file.is_file():
        return
    for key, value in bounded_json(file).items():
        if value not in FETCHED_GENERATION.get(key, (value,)):
            rule = "transformers runs code of the hub for it"
            raise UserError(f"{file}: {key}", value, rule, "remove the key")


def _check_shipped_code(folder: Path) -> None:
    """Raise `UserError` if `auto_map` names code for which transformers has none of its own.

    It has its own for a model type that it knows, and for a tokenizer that is all in its file.
    """
    config, tokenizer = (
        bounded_json(folder / name) if (folder / name).is_file() else {}
        for name in (CONFIG, TOKENIZER)
    )
    own, of_tokenizer = list(_named_code(config)), list(_named_code(tokenizer))
    if tokenizer.get("tokenizer_class") not in PLAIN_TOKENIZERS:
        own += of_tokenizer
    codes = list(dict.fromkeys(own))
    if not codes or config.get("model_type") in causal_families():
        return
    rule = f"needs code that is shipped with it ({', '.join(codes)}), which is not run by default"
    places = ", ".join(_place(folder, code) for code in codes)
    fix = f"read {places}, then set model.trust_remote_code=true"
    raise UserError("model.path", folder, rule, fix)


def _named_code(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that `auto_map` names: {"AutoConfig": "configuration_x.XConfig"}."""
    named = config.get("auto_map")
    for value in named.values() if isinstance(named, dict) else [named]:
        for one in value if isinstance(value, list) else [value]:
            if one:
                yield f"{str(one).rpartition('.')[0] or one}.py"


def _place(folder: Path, code: str) -> str:
    """Return where to read a file of code; `OWNER/NAME--FILE` is in another repository."""
    repository, dashes, file = code.rpartition("--")
    return f"{file} of https://huggingface.co/{repository}" if dashes else str(folder / code)


def _pairs(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of nested JSON."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from _pairs(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _pairs(value)

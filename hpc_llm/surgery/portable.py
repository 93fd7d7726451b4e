"""Make saved model folders load in transformers 4 too, with equal weights, positions and tokens.

transformers 5 writes names that version 4 does not read: it raises an error for them, or falls back
on a default (`rope_theta` 10,000) without a word. Version 5 reads both forms.
"""

from pathlib import Path
from typing import Any

from hpc_llm.rundir import read_json, write_json

__all__ = ["make_portable"]

NEW_CLASS, OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"


def make_portable(folder: Path) -> None:
    """Add to the JSON files of a model folder what transformers 4 reads."""
    for name, change in (("config.json", _rope), ("tokenizer_config.json", _tokenizer)):
        file = folder / name
        if file.is_file():
            values = read_json(file)
            change(values)
            write_json(file, values)


def _rope(config: dict[str, Any]) -> None:
    """Set `rope_theta` and `rope_scaling` beside `rope_parameters` (one set for all layers)."""
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, dict) or "rope_theta" not in parameters:
        return
    config.setdefault("rope_theta", parameters["rope_theta"])
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    if scaling.get("rope_type", "default") != "default":
        config.setdefault("rope_scaling", scaling)


def _tokenizer(settings: dict[str, Any]) -> None:
    if settings.get("tokenizer_class") == NEW_CLASS:
        settings["tokenizer_class"] = OLD_CLASS
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):  # version 4 has a mapping there, and this name for a list
        del settings["extra_special_tokens"]
        if extra:
            settings["additional_special_tokens"] = extra

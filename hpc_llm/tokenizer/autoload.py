"""Makes `AutoTokenizer` load the new tokenizer, also next to the base model's `config.json`.

For a few model types (Qwen2, Qwen3.5 ...) transformers 5 ignores `tokenizer_config.json` and loads
the class of the model type, which silently drops text it cannot represent. An `auto_map` disables
that (`transformers/models/auto/tokenization_auto.py`, "V5: Skip remote tokenizer"). The file it
names is one empty subclass; it runs only where a user sets `trust_remote_code`.
"""

from pathlib import Path

from hpc_llm.rundir import read_json, write_json, write_text

__all__ = ["keep_class"]

MODULE = "plain_tokenizer"
SOURCE = '''"""The tokenizer of this folder for `trust_remote_code`: its base class, unchanged."""

from transformers import PreTrainedTokenizerFast


class PlainTokenizer(PreTrainedTokenizerFast):
    """Reads tokenizer.json as it is."""
'''


def _is_overruled(model_type: str) -> bool:
    """Return whether transformers prefers its own tokenizer class for `model_type`."""
    from transformers.models.auto import tokenization_auto

    plain = ("TokenizersBackend", "PreTrainedTokenizerFast", None)
    distrusted = getattr(tokenization_auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", ())
    registered = tokenization_auto.TOKENIZER_MAPPING_NAMES.get(model_type)
    return model_type in distrusted and registered not in plain


def keep_class(folder: Path, model_type: str | None) -> None:
    """Make `AutoTokenizer` load `tokenizer.json` in `folder` unchanged, for this model type."""
    if model_type is None or not _is_overruled(model_type):
        return
    settings = read_json(folder / "tokenizer_config.json")
    settings["auto_map"] = {"AutoTokenizer": [None, f"{MODULE}.PlainTokenizer"]}
    write_json(folder / "tokenizer_config.json", settings)
    write_text(folder / f"{MODULE}.py", SOURCE)

"""A tokenizer of the user, in place of one that the run trains: `tokenizer.path=FOLDER`."""

import os
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.rundir import bounded_json
from hpc_llm.tokenizer.files import VOCABULARIES
from hpc_llm.tokenizer.text import Encode

__all__ = ["json_size", "load_own", "own_folder", "own_size", "require_lossless"]

KEY = "tokenizer.path"
SAVE = "save it with save_pretrained of transformers"
TRIED_DOCUMENTS = 200


def own_folder(path: str) -> Path:
    """Return the folder of the tokenizer. Raises `UserError` if it is missing or has none."""
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise UserError(KEY, path, "no such folder", "use the folder of a tokenizer")
    if not any((folder / name).is_file() for name in VOCABULARIES):
        rule = f"has no tokenizer: none of {', '.join(VOCABULARIES)}"
        raise UserError(KEY, path, rule, SAVE)
    return folder


def own_size(path: str) -> int:
    """Return the largest id + 1 of the tokenizer at `path`, from its files, without transformers.

    Of a tokenizer without `tokenizer.json` and `vocab.json` it is the size of its first vocabulary
    file.
    """
    folder = own_folder(path)
    if (folder / "tokenizer.json").is_file():
        return json_size(folder / "tokenizer.json", KEY, path)
    if (folder / "vocab.json").is_file():
        return int(max(bounded_json(folder / "vocab.json", SAVE).values())) + 1
    if (folder / "vocab.txt").is_file():
        return len((folder / "vocab.txt").read_text("utf-8").splitlines())
    import sentencepiece

    model = next(folder / name for name in VOCABULARIES if (folder / name).is_file())
    return len(sentencepiece.SentencePieceProcessor(model_file=str(model)))


def json_size(file: Path, key: str, path: str) -> int:
    """Return the largest id + 1 in a `tokenizer.json`. Errors name the setting `key=path`."""
    parts = bounded_json(file, SAVE)
    try:
        vocabulary = parts["model"]["vocab"]
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return int(max([*ids, *(token["id"] for token in parts["added_tokens"])])) + 1
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(key, path, "its tokenizer.json has no vocabulary", SAVE) from error


def load_own(path: str) -> Any:
    """Return the tokenizer at `path` as transformers loads it.

    A folder of `vocab.json` and `merges.txt` alone is byte-level BPE, as of GPT-2. Raises
    `UserError` for one that cannot be loaded, has no fast form or no token that ends a text.
    """
    from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

    folder = own_folder(path)
    kinds: list[Callable[[Path], Any]] = [AutoTokenizer.from_pretrained]
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        kinds.append(GPT2Tokenizer.from_pretrained)
    if (folder / "tokenizer.json").is_file():
        kinds.append(PreTrainedTokenizerFast.from_pretrained)
    reason = ""
    for load in kinds:
        try:
            found = load(folder)
            break
        except Exception as error:  # transformers and tokenizers raise anything
            reason = " ".join(str(error).split())[:200] or type(error).__name__
    else:
        raise UserError(KEY, path, f"transformers cannot load it ({reason})", SAVE)
    if not found.is_fast:
        raise UserError(KEY, path, "has no fast form (tokenizer.json)", SAVE)
    if found.eos_token_id is None:
        rule = "has no token that ends a text"
        raise UserError(KEY, path, rule, "set eos_token in its tokenizer_config.json")
    return found


def require_lossless(
    encode: Encode, decode: Callable[[list[int]], str], texts: Iterable[str], path: str
) -> None:
    """Raise `UserError` if some of the first 200 `texts` do not decode exactly.

    Bits per byte of a model that never sees the lost text would be too low.
    """
    tried = list(islice(texts, TRIED_DOCUMENTS))
    decoded = map(decode, encode(tried) if tried else [])
    lost = [(text, back) for text, back in zip(tried, decoded, strict=True) if text != back]
    if not lost:
        return
    text, back = lost[0]
    place = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), None)
    start = min(len(text), len(back)) if place is None else place
    rule = (
        f"loses text: {len(lost)} of {len(tried)} training documents decode to another text, the "
        f"first at {text[start : start + 10]!r} (decoded: {back[start : start + 10]!r})"
    )
    raise UserError(KEY, path, rule, "use a tokenizer without normalisation and unknown tokens")

"""Text to token ids, one rule for all text of a run: trained, scored, sampled and prompts.

A special token's string can occur in a text: `</s>` in HTML, `<|endoftext|>` in a paper, `[INST]`
in a forum. `tokenizer.special_strings=text` reads it as letters, as sentencepiece does; `tokens`
reads it as the special token, as the transformers tokenizers do. Old and new vocabulary follow the
same rule, otherwise their bits per byte would not compare.
"""

import json
from collections.abc import Callable
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.tokenizer.specials import is_text, special_tokens_of

__all__ = ["Encode", "Spans", "first_token", "span_encoder", "special_strings", "text_encoder"]

Encode = Callable[[list[str]], list[list[int]]]
"""Texts to ids, without BOS and EOS."""
Spans = Callable[[list[str]], list[list[tuple[int, int]]]]
"""Texts to the first character of each token and the one after its last, without BOS and EOS."""

HIDDEN = "\0{}\0"  # the name of a token that no text contains: NUL is not text


def special_strings(tokenizer: Any) -> set[str]:
    """Return the strings of the special tokens, without white space and digits, which are text."""
    tokens = special_tokens_of(tokenizer)
    strings = {tokens.unk, tokens.bos, tokens.eos, tokens.pad, *tokens.additional}
    strings |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return {string for string in strings if string and string.strip() and not string.isdigit()}


def text_encoder(tokenizer: Any, special: str = "text", rows: int | None = None) -> Encode:
    """Return the function from texts to ids (without BOS and EOS) of a transformers tokenizer.

    `special` is `tokenizer.special_strings`: text or tokens. `rows` is the number of embeddings of
    the model: added tokens with larger ids are read as letters, since the model has no embedding
    for them. The returned function raises `UserError` for other ids of that kind.
    """
    added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items()}
    letters = set() if rows is None else {text for text, index in added.items() if index >= rows}
    if special == "text":
        letters |= special_strings(tokenizer)
    backend = _backend(tokenizer)
    encode = _slow(tokenizer, bool(letters)) if backend is None else _fast(backend, letters)
    return encode if rows is None else _bounded(encode, rows)


def span_encoder(tokenizer: Any) -> Spans | None:
    """Return the function from texts to the characters of each token; special strings are letters.

    None for a tokenizer without a backend of the library `tokenizers`: it has no offsets.
    """
    backend = _backend(tokenizer)
    if backend is None:
        return None
    copy = _with_letters(backend, special_strings(tokenizer))
    return lambda texts: [e.offsets for e in copy.encode_batch(texts, add_special_tokens=False)]


def _backend(tokenizer: Any) -> Any | None:
    """Return the `tokenizers.Tokenizer` of a tokenizer; None for one written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend if hasattr(backend, "encode_batch_fast") else None


def _with_letters(backend: Any, letters: set[str]) -> Any:
    """Return a copy of `backend` for which the strings `letters` are plain text."""
    from tokenizers import Tokenizer

    parts = json.loads(backend.to_str())
    hidden = _hide(parts["model"], {string for string in letters if not is_text(string)})
    parts["added_tokens"] = [
        {**token, "special": token["content"] in letters}
        for token in parts["added_tokens"]
        if token["content"] not in hidden
    ]
    copy = Tokenizer.from_str(json.dumps(parts))
    copy.encode_special_tokens = True  # what is flagged special is not searched for in texts
    copy.no_truncation()
    copy.no_padding()
    return copy


def _fast(backend: Any, letters: set[str]) -> Encode:
    """Return the function of `backend`, for which the strings `letters` are plain text."""
    copy = _with_letters(backend, letters)

    def encode(texts: list[str]) -> list[list[int]]:
        try:
            found = copy.encode_batch_fast(texts, add_special_tokens=False)
        except Exception as error:  # the library's only kind
            rule = f"its tokenizer cannot encode the text ({error})"
            fix = "use a tokenizer with an unknown token or byte fallback"
            raise UserError("model.path", None, rule, fix) from error
        return [one.ids for one in found]

    return encode


def _hide(model: dict[str, Any], letters: set[str]) -> set[str]:
    """Rename `letters` in a `model` that would find them in a text; return the renamed ones.

    Unigram and word models look up any string of their vocabulary. BPE finds what it merges, and
    whole words where it ignores its merges.
    """
    vocabulary, kind = model["vocab"], model["type"]
    if kind == "Unigram":
        found = {token for token, _ in vocabulary} & letters
        model["vocab"] = [
            [HIDDEN.format(token) if token in found else token, score]
            for token, score in vocabulary
        ]
        return found
    merged = {"".join(pair) for pair in model.get("merges", ())}
    if kind == "BPE" and not model.get("ignore_merges"):
        return set()
    found = {token for token in letters if token in vocabulary} - merged - {model.get("unk_token")}
    for token in found:
        vocabulary[HIDDEN.format(token)] = vocabulary.pop(token)
    return found


def _slow(tokenizer: Any, split: bool) -> Encode:
    """Return the function of a tokenizer written in Python."""

    def encode(texts: list[str]) -> list[list[int]]:
        found = tokenizer(texts, add_special_tokens=False, split_special_tokens=split)
        ids: list[list[int]] = found["input_ids"]
        return ids

    return encode


def _bounded(encode: Encode, rows: int) -> Encode:
    """Return `encode` with a check that the model has an embedding for each id."""

    def checked(texts: list[str]) -> list[list[int]]:
        encoded = encode(texts) if texts else []
        largest = max((max(ids) for ids in encoded if ids), default=-1)
        if largest >= rows:
            rule = f"its tokenizer has the id {largest}, the model only {rows} embeddings"
            fix = "use the tokenizer that belongs to the model"
            raise UserError("model.path", None, rule, fix)
        return encoded

    return checked


def first_token(tokenizer: Any, rows: int | None = None) -> int | None:
    """Return the token before a document: BOS, or EOS if the vocabulary has no BOS.

    `rows` is the number of embeddings of the model: tokens without one are skipped.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None and (rows is None or token < rows):
            return int(token)
    return None

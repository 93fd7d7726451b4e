"""Surfaces: the text of a token in bytes, for any kind of vocabulary.

Tokens of two vocabularies match if their surfaces are equal: the bytes of their text, including the
leading space. Three kinds are supported: sentencepiece-like ("▁word", "<0xD0>"), byte-level BPE
(GPT-2's letters for bytes) and plain text.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from hpc_llm.tokenizer.sample import LITERAL, SPACE
from hpc_llm.tokenizer.text import Encode, text_encoder

__all__ = ["Surface", "pieces_of", "surface_of", "surfaces"]


class Surface(NamedTuple):
    """The text of a token."""

    text: bytes
    """The bytes of its text, including its leading space."""
    lone_byte: bool
    """Whether it is a byte token such as <0x41>, a fallback for other text; not the letter A."""


BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
PREFIXES = ("\n", "0", "!", "—", "a")


@cache
def _byte_letters() -> dict[str, int]:
    """Return byte-level BPE's letters for bytes (Radford et al. 2019): letter -> byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    letters.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return letters


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a fast tokenizer represents bytes as letters (byte-level BPE)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    parts = json.loads(backend.to_str())
    return "ByteLevel" in json.dumps([parts.get("pre_tokenizer"), parts.get("decoder")])


def surface_of(token: str, byte_level: bool) -> Surface:
    """Return the surface of `token`; at the byte level its letters stand for bytes."""
    if byte_level:
        letters = _byte_letters()
        if all(letter in letters for letter in token):
            return Surface(bytes(letters[letter] for letter in token), False)
        return Surface(token.encode(), False)
    if match := BYTE_PIECE.fullmatch(token):
        return Surface(bytes([int(match.group(1), 16)]), True)
    return Surface(token.replace(SPACE, " ").replace(LITERAL, SPACE).encode(), False)


def surfaces(tokenizer: PreTrainedTokenizerBase) -> list[Surface | None]:
    """Return the surface of each id from 0 to the largest; None for special and unused ids."""
    special = set(tokenizer.all_special_ids)
    byte_level = _is_byte_level(tokenizer)
    tokens = {index: token for token, index in tokenizer.get_vocab().items()}
    return [
        None if index in special or index not in tokens else surface_of(tokens[index], byte_level)
        for index in range(max(tokens) + 1)
    ]


def pieces_of(
    surfaces: Sequence[bytes | None], old: PreTrainedTokenizerBase, encode: Encode | None = None
) -> list[list[int]]:
    """Return the old ids that spell each surface; [] if it is no valid text or cannot be spelled.

    `encode` is the `text_encoder` of `old`; None: it is made here. The texts are encoded after a
    prefix, whose ids are then removed, so that the tokenizer does not prepend a space; where the
    prefix merges with the text, another one is tried.
    """
    encode = encode or text_encoder(old)
    texts = [_text_of(surface) for surface in surfaces]
    found: list[list[int]] = [[] for _ in texts]
    left = [i for i, text in enumerate(texts) if text is not None]
    for prefix in PREFIXES:
        head, *wholes = encode([prefix, *(f"{prefix}{texts[i]}" for i in left)])
        merged = []
        for i, whole in zip(left, wholes, strict=True):
            if whole[: len(head)] == head and len(whole) > len(head):
                found[i] = [index for index in whole[len(head) :] if index != old.unk_token_id]
            else:
                merged.append(i)
        left = merged
    return found


def _text_of(surface: bytes | None) -> str | None:
    """Return the text of a surface; None for a single byte of a longer character."""
    try:
        return None if surface is None else surface.decode()
    except UnicodeDecodeError:
        return None

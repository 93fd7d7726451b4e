"""A document between the steps of the corpus stage."""

from hashlib import blake2b
from typing import NamedTuple

__all__ = ["Document", "digest_of"]


class Document(NamedTuple):
    """A cleaned document."""

    file: str
    text: str
    alone: bool = True
    """Whether no other kept document is a candidate for a near-duplicate of it."""


def digest_of(text: str) -> bytes:
    """Return the digest that names a text, 16 bytes."""
    return blake2b(text.encode(), digest_size=16).digest()

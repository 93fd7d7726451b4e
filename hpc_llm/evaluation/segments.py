"""Held-out text that fits a limit in bytes and is enough for a confidence interval.

Documents are the unit of the bootstrap. Where there are very few of them, or one is longer than the
limit, they are cut at white space into segments that are scored like documents, for every model and
tokenizer alike.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["FEW_DOCUMENTS", "Heldout", "select"]

FEW_DOCUMENTS = 5
"""Fewer documents than that give no useful interval."""
SEGMENTS = 10
"""So many segments at least are cut from them, unless they would be shorter than:"""
SHORTEST_SEGMENT = 200  # bytes


@dataclass(frozen=True, kw_only=True)
class Heldout:
    """Held-out documents, or segments of them."""

    texts: list[str]
    """What is scored, each on its own."""
    note: str
    """What was cut, for the log line; empty if nothing was."""


def select(documents: Iterable[str], most_bytes: int) -> Heldout:
    """Return the first documents of at most `most_bytes` in all; of one too long its beginning."""
    texts: list[str] = []
    size, note = 0, ""
    for text in documents:
        length = len(text.encode())
        if not texts and length > most_bytes:
            text = next(_pieces(text, most_bytes))
            note = f"the first {len(text.encode()):,} of {length:,} bytes of one document"
        elif texts and size + length > most_bytes:
            break
        texts.append(text)
        size += length
    if len(texts) >= FEW_DOCUMENTS or not texts:
        return Heldout(texts=texts, note=note)
    most = max(SHORTEST_SEGMENT, _size(texts) // SEGMENTS)
    segments = [piece for text in texts for piece in _pieces(text, most)]
    if len(segments) > len(texts):
        counted = "1 document" if len(texts) == 1 else f"{len(texts)} documents"
        note = f"{note or counted}, cut into {len(segments)} segments"
    return Heldout(texts=segments, note=note)


def _size(texts: Iterable[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _pieces(text: str, most: int) -> Iterator[str]:
    """Yield `text` in parts of at most `most` bytes, cut after newlines or before spaces.

    A word that is longer is cut between characters; joined, the parts are the text.
    """
    data = text.encode()
    start = 0
    while len(data) - start > most:
        part = data[start : start + most]
        cut = max(part.rfind(b"\n") + 1, part.rfind(b" "))
        if cut <= 0:
            cut = most
            while cut > 1 and data[start + cut] & 0xC0 == 0x80:  # inside a character
                cut -= 1
        yield data[start : start + cut].decode()
        start += cut
    yield data[start:].decode()

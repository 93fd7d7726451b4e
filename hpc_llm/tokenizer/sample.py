"""Training text of the tokenizer: a uniform random sample of chunks of all documents.

Memory grows with the text (sentencepiece holds all of it), so the number of characters is limited;
the head of a corpus does not represent it, so the sample is random over the whole corpus.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

__all__ = [
    "CHUNK_CHARACTERS",
    "LITERAL",
    "SPACE",
    "MixedTexts",
    "as_sentencepiece",
    "chunks_of",
    "draw",
]

SPACE, LITERAL = "\u2581", "\ufdd0"
"""U+2581 is sentencepiece's sign for a space. In a text it is U+FDD0 to the tokenizer, a code point
that Unicode reserves for such internal use, and U+2581 again after decoding."""

CHUNK_CHARACTERS = 4096  # 8 KiB of Cyrillic, at most 16 KiB


@dataclass(frozen=True)
class MixedTexts:
    """Documents of several sources, which `draw` samples in their shares."""

    parts: Sequence[tuple[float, Iterable[str]]]
    """Share of the characters, and documents, of each source; the shares sum to 1."""

    def __iter__(self) -> Iterator[str]:
        """Yield all documents, one source after another."""
        return (text for _, texts in self.parts for text in texts)


def chunks_of(text: str) -> Iterator[str]:
    """Yield `text` in consecutive chunks of whole lines, of at most 4,096 characters each.

    Newlines are kept; a longer line is split before spaces. No token spans such a boundary, so the
    ids of the chunks, concatenated, are the ids of the text.
    """
    start = 0
    while len(text) - start > CHUNK_CHARACTERS:
        end = text.rfind("\n", start, start + CHUNK_CHARACTERS) + 1
        if end <= start:
            head = text[start : start + CHUNK_CHARACTERS]
            end = start + len(head[: head.rfind(" ") + 1].rstrip(" "))
        if end <= start:  # one word
            end = start + CHUNK_CHARACTERS
        yield text[start:end]
        start = end
    if start < len(text):
        yield text[start:]


def as_sentencepiece(text: str) -> str:
    """Return `text` with its literal U+2581 told apart from spaces."""
    return text.replace(SPACE, LITERAL)


def draw(texts: Iterable[str], most_characters: int, seed: int) -> list[str]:
    """Return a random sample of the chunks of `texts`, in order, of at most `most_characters`.

    Each chunk gets a key, the hash of (seed, its index); while there are too many characters, the
    chunk with the largest key is dropped. Holds at most `most_characters` at a time. Of each source
    of `MixedTexts` its share of `most_characters` is drawn, or all of it if it has less.
    """
    if isinstance(texts, MixedTexts):
        drawn = [draw(own, round(most_characters * share), seed) for share, own in texts.parts]
        return [chunk for chunks in drawn for chunk in chunks]
    salt = seed.to_bytes(8, "little", signed=True)
    heap: list[tuple[int, int, str]] = []  # (-key, place, chunk): the largest key on top
    characters = 0
    chunks = (chunk for text in texts for chunk in chunks_of(text))
    for place, chunk in enumerate(chunks):
        digest = blake2b(place.to_bytes(8, "little"), key=salt, digest_size=8).digest()
        heapq.heappush(heap, (-int.from_bytes(digest), place, chunk))
        characters += len(chunk)
        while characters > most_characters:
            characters -= len(heapq.heappop(heap)[2])
    return [chunk for _, chunk in sorted((place, chunk) for _, place, chunk in heap)]

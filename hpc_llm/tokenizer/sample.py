"""The text a vocabulary is trained on: pieces of all documents, drawn evenly and cut to a budget.

Memory grows with the text (sentencepiece holds all of it), so there is a budget of characters; and
the head of a corpus is not the corpus, so what exceeds the budget is left out by lot, not by place.
"""

import heapq
from collections.abc import Iterable, Iterator
from hashlib import blake2b

__all__ = ["CHUNK_CHARACTERS", "chunks_of", "draw"]

CHUNK_CHARACTERS = 4096  # 8 KiB of Cyrillic, at most 16 KiB


def chunks_of(text: str) -> Iterator[str]:
    """Yield `text` in consecutive chunks of whole lines, of at most 4,096 characters each.

    Newlines are kept; a longer line is cut in front of spaces. No piece of a vocabulary lies
    across such a cut, so the chunks' ids, joined, are the text's ids.
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


def draw(texts: Iterable[str], most_characters: int, seed: int) -> list[str]:
    """Return chunks of `texts` in their order, at most `most_characters` in all, drawn by lot.

    Each chunk draws a number from (seed, its place); while there are too many characters, the
    chunk with the largest number leaves. Holds at most `most_characters` at a time.
    """
    salt = seed.to_bytes(8, "little", signed=True)
    heap: list[tuple[int, int, str]] = []  # (-number, place, chunk): the largest number on top
    characters = 0
    chunks = (chunk for text in texts for chunk in chunks_of(text))
    for place, chunk in enumerate(chunks):
        digest = blake2b(place.to_bytes(8, "little"), key=salt, digest_size=8).digest()
        heapq.heappush(heap, (-int.from_bytes(digest), place, chunk))
        characters += len(chunk)
        while characters > most_characters:
            characters -= len(heapq.heappop(heap)[2])
    return [chunk for _, chunk in sorted((place, chunk) for _, place, chunk in heap)]

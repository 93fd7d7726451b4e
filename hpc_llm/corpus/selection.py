"""The pass over all documents of a text: which are kept, and which of these are held out."""

import heapq
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from hpc_llm.corpus.clean import clean, count_invisible
from hpc_llm.corpus.document import Document, digest_of
from hpc_llm.corpus.drops import CONTAMINATED, Drops
from hpc_llm.corpus.rules import Filter
from hpc_llm.settings import CorpusSettings

__all__ = ["Selection"]

TEST_SHARE = 2 / 3  # of the held-out documents, when the corpus is too small for all requested


class Selection:
    """State of the pass: digests seen, documents held out so far, and the counts."""

    def __init__(
        self,
        settings: CorpusSettings,
        seed: int,
        heldout: Iterable[str] | None,
        elsewhere: set[bytes] | None,
        rules: Filter | None,
    ) -> None:
        """Begin a pass.

        `heldout` are texts held out elsewhere: nothing is held out here. `elsewhere` are digests of
        documents of other texts, which are duplicates here.
        """
        self.settings = settings
        self.rules, self.drops = rules, Drops()
        self.elsewhere = set() if elsewhere is None else elsewhere
        self.similar: Iterable[str] = ()
        """Documents of other texts: near-duplicates of them are dropped."""
        self.heldout = {digest_of(text) for text in heldout or ()}
        self.capacity = 0 if heldout is not None else _requested(settings)
        self.salt = f"{seed}|".encode()
        self.seen: set[bytes] = set()
        self.heap: list[tuple[int, Document]] = []  # (-key, document): the largest key is on top
        self.test: list[str] = []
        self.tune: list[str] = []
        self.documents = self.characters = self.bytes = self.words = 0
        self.duplicates = self.dropped = self.empty = self.excluded = self.invisible = 0

    def train_texts(self, documents: Iterable[tuple[str, str]], folder: Path) -> Iterator[str]:
        """Yield the training part of `documents`; `test` and `tune` are set when it ends.

        Each document is a pair of its file and its text. `folder` takes temporary files, and a list
        of near-duplicates.
        """
        found = self._unique(documents)
        if self.settings.deduplicate == "minhash":
            from hpc_llm.corpus.near_pass import without_copies

            minhash = self.settings.minhash
            found = without_copies(found, minhash, self.similar, folder, self.drops)
        contamination = None
        if self.settings.decontaminate:
            from hpc_llm.corpus.contamination import Contamination

            contamination = Contamination(self.settings)
        for one in self._split(found):
            if contamination is not None and (owner := contamination.found_in(one.text)):
                self.drops.document(CONTAMINATED, one.text, one.file, owner)
                continue
            self._count(one.text)
            self.words += len(one.text.split())
            yield one.text

    def _unique(self, documents: Iterable[tuple[str, str]]) -> Iterator[Document]:
        """Yield the documents, cleaned, without exact duplicates."""
        for file, document in documents:
            self.invisible += count_invisible(document)
            text = self._filter(clean(document), file)
            if text is not None and self._is_new(text):
                yield Document(file, text)

    def _filter(self, text: str, file: str) -> str | None:
        """Return what the rules leave of one cleaned document; None if one drops it."""
        self.drops.begin(text, file)
        if self.rules is None:
            self.drops.keep(text)
            return text
        found = self.rules(text)
        if found.dropped is not None:
            self.drops.document(found.dropped, text, file)
            return None
        for rule, line in found.removed:
            self.drops.line(rule, line, file)
        self.drops.keep(found.text)
        return found.text

    def _is_new(self, text: str) -> bool:
        """Whether a document is long enough, not held out elsewhere, and no exact duplicate."""
        if len(text) < self.settings.min_characters:
            self.dropped += 1
            self.empty += not text
            return False
        digest = digest_of(text)
        if digest in self.heldout:
            self.excluded += 1
            return False
        if digest in self.seen or digest in self.elsewhere:
            self.duplicates += 1
            return False
        self.seen.add(digest)
        return True

    def _split(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Yield the documents that are not held out."""
        admitted = 0
        for one in documents:
            admitted += 1
            if not one.alone:
                yield one
            elif (other := self._hold_out(one)) is not None:
                yield other
        heldout = [one for _, one in sorted(self.heap, reverse=True)]
        test, tune = self._heldout_numbers(admitted)
        self.test = [one.text for one in heldout[:test]]
        self.tune = [one.text for one in heldout[test : test + tune]]
        for text in (*self.test, *self.tune):
            self._count(text)
        yield from heldout[test + tune :]

    def _hold_out(self, one: Document) -> Document | None:
        """Hold out a document for now; return the one whose place it takes, or itself."""
        if not self.capacity:
            return one
        item = (-int.from_bytes(sha256(self.salt + one.text.encode()).digest()), one)
        if len(self.heap) < self.capacity:
            heapq.heappush(self.heap, item)
            return None
        return heapq.heappushpop(self.heap, item)[1]

    def _count(self, text: str) -> None:
        self.documents += 1
        self.characters += len(text)
        self.bytes += len(text.encode())

    def _heldout_numbers(self, documents: int) -> tuple[int, int]:
        """Return the numbers of test and tune documents: as set, or fewer of a small corpus."""
        test, tune = self.settings.test_documents, self.settings.tune_documents
        most = int(documents * self.settings.max_heldout_share)
        most = min(max(2, min(most, documents - 1)), len(self.heap))
        if self.capacity == 0:
            return 0, 0
        if test + tune > most:
            test = min(most - 1, max(1, round(most * TEST_SHARE)))
            tune = most - test
        return test, tune


def _requested(settings: CorpusSettings) -> int:
    return settings.test_documents + settings.tune_documents

"""Tokens and merges of a BPE tokenizer, read from and written to the parts of a `tokenizer.json`.

The rank of a merge is its place in the list, whatever the ids of the tokens are.
"""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hpc_llm.errors import UserError
from hpc_llm.vocabulary.surfaces import surface_of

__all__ = ["BpeTables", "Merge", "read_tables"]

Merge = tuple[str, str]
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, kw_only=True)
class BpeTables:
    """A BPE vocabulary."""

    vocab: dict[str, int]
    """Ids of the tokens, added tokens included."""
    merges: list[Merge]
    """Pairs of tokens in order of their rank; the joined strings are tokens, too."""
    added: frozenset[str]
    """Added tokens: found in a text before it is cut into words; special tokens are among them."""
    byte_level: bool
    """Whether tokens spell bytes by letters (GPT-2); else text, with U+2581 for a space."""
    options: dict[str, Any]
    """The other entries of the model: unk_token, byte_fallback, ignore_merges, ..."""

    @property
    def whole_words(self) -> bool:
        """Whether a word that is a token is taken whole, without merges (Llama-3)."""
        return bool(self.options.get("ignore_merges"))

    @property
    def size(self) -> int:
        """The largest id + 1."""
        return max(self.vocab.values()) + 1

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Tokens without which text or roles are lost: added, unknown, bytes, single characters."""
        found = {t for t in self.vocab if len(t) == 1 or self._is_character(t)}
        return frozenset(found | self.apart)

    @cached_property
    def apart(self) -> frozenset[str]:
        """Tokens that take no part in merges: added, unknown and byte tokens such as <0x41>."""
        found = {token for token in self.vocab if self.is_byte(token)}
        unknown = {token for token in self.vocab if token == self.options.get("unk_token")}
        return frozenset(found | unknown | self.added)

    def is_byte(self, token: str) -> bool:
        """Return whether `token` is a fallback for one byte: <0x41>."""
        return not self.byte_level and bool(BYTE_TOKEN.fullmatch(token))

    def surface(self, token: str) -> bytes:
        """Return the bytes of the text of `token`."""
        return surface_of(token, self.byte_level).text

    def _is_character(self, token: str) -> bool:
        """Return whether `token` is one character of several bytes, or a part of one."""
        return self.byte_level and len(self.surface(token).decode("utf-8", "replace")) == 1

    def model(self) -> Any:
        """Return the `tokenizers` model, which encodes words."""
        from tokenizers.models import BPE

        kept = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")
        options = {name: self.options[name] for name in kept if self.options.get(name) is not None}
        return BPE(self.vocab, self.merges, **options)

    def without(self, tokens: Collection[str]) -> "BpeTables":
        """Return the tables without `tokens` and their merges; other ids and ranks stay."""
        gone = set(tokens)
        vocab = {token: index for token, index in self.vocab.items() if token not in gone}
        merges = [pair for pair in self.merges if gone.isdisjoint((*pair, "".join(pair)))]
        return replace(self, vocab=vocab, merges=merges)

    def compacted(self) -> tuple["BpeTables", list[int]]:
        """Return the tables with ids from 0 without gaps, in the old order, and their old ids."""
        ordered = sorted(self.vocab, key=self.vocab.__getitem__)
        old_ids = [self.vocab[token] for token in ordered]
        return replace(self, vocab={token: i for i, token in enumerate(ordered)}), old_ids

    def with_additions(
        self, tokens: Sequence[str], merges: Sequence[Merge], ids: Iterable[int] | None = None
    ) -> "BpeTables":
        """Return the tables with new `tokens` at `ids`, and `merges` of lower rank than all others.

        `ids` None: the ids that follow the largest one.
        """
        places = range(self.size, self.size + len(tokens)) if ids is None else ids
        vocab = self.vocab | dict(zip(tokens, places, strict=True))
        return replace(self, vocab=vocab, merges=[*self.merges, *merges])

    def write(self, parts: dict[str, Any]) -> dict[str, Any]:
        """Return the `parts` of a `tokenizer.json` with these tokens and merges.

        Added tokens are tokens of the model as well: otherwise `tokenizers` numbers them anew.
        """
        model = {
            **self.options,
            "vocab": self.vocab,
            "merges": [list(pair) for pair in self.merges],
        }
        added = [
            {**token, "id": self.vocab[token["content"]]}
            for token in parts["added_tokens"]
            if token["content"] in self.vocab
        ]
        return {
            **parts,
            "model": model,
            "added_tokens": sorted(added, key=lambda token: token["id"]),
            "post_processor": _renumbered(parts["post_processor"], self.vocab),
            "truncation": None,
            "padding": None,
        }


def _renumbered(part: Any, vocab: dict[str, int]) -> Any:
    """Return a part of a post-processor with the ids of its special tokens in `vocab`."""
    if isinstance(part, list):
        if len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int):
            return [part[0], vocab[part[0]]]  # of BertProcessing and RobertaProcessing
        return [_renumbered(item, vocab) for item in part]
    if not isinstance(part, dict):
        return part
    if part.keys() == {"id", "ids", "tokens"}:  # of TemplateProcessing
        return {**part, "ids": [vocab[token] for token in part["tokens"]]}
    return {name: _renumbered(item, vocab) for name, item in part.items()}


def read_tables(parts: dict[str, Any], mode: str) -> BpeTables:
    """Return the tables of the `parts` of a `tokenizer.json`.

    Merges are pairs, or strings with a space in between. Raises `UserError` about transplant.mode
    for a tokenizer that is no BPE, or marks the parts of words.
    """
    model = parts["model"]
    if model["type"] != "BPE":
        rule = f"needs a BPE vocabulary; that of the base is {model['type']}"
        raise UserError("transplant.mode", mode, rule, "use transplant=replace")
    marked = [model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")]
    if any(marked):
        found = " ".join(filter(None, marked))
        rule = f"needs a BPE vocabulary that does not mark parts of words, as {found} does"
        raise UserError("transplant.mode", mode, rule, "use transplant=replace")
    added = {token["content"]: token["id"] for token in parts["added_tokens"]}
    pairs = (m.split(" ", 1) if isinstance(m, str) else m for m in model["merges"])
    return BpeTables(
        vocab={**model["vocab"], **added},
        merges=[(left, right) for left, right in pairs],
        added=frozenset(added),
        byte_level="ByteLevel" in json.dumps([parts["pre_tokenizer"], parts["decoder"]]),
        options={k: v for k, v in model.items() if k not in ("vocab", "merges")},
    )

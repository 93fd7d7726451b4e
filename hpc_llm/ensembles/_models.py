"""A base model, its instruct sibling and its adapted version, opened for a composition.

Their layers stay on disk; input embeddings and LM heads are in memory. The result has the layers
and the configuration of the instruct model, and the vocabulary of the adapted one with the special
tokens, chat template and generation settings of the instruct model.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hpc_llm.ensembles._sources import Form, check_siblings, model_folder, naming, settings_for
from hpc_llm.errors import UserError
from hpc_llm.settings import ModelSettings, RunConfig
from hpc_llm.settings.compose import ModelsSettings
from hpc_llm.surgery.loading import DTYPES, load_tokenizer
from hpc_llm.surgery.outline import NotStreamed, Outline, TensorOf, open_outline
from hpc_llm.tokenizer.specials import is_text, special_tokens_of
from hpc_llm.vocabulary.anchors import match_rows
from hpc_llm.vocabulary.rows import NewTokens
from hpc_llm.vocabulary.tables import check_replaced
from hpc_llm.vocabulary.token_ids import move_token_ids
from hpc_llm.vocabulary.transplant import replace_rows

__all__ = ["Siblings", "Source", "open_siblings", "write_model"]

Pairs = Sequence[tuple[int, int]]
"""(id in the result, id in the instruct model)."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of the models."""

    key: str
    """The setting that names it."""
    path: str
    """Its value."""
    outline: Outline
    tokenizer: PreTrainedTokenizerBase

    @property
    def model(self) -> PreTrainedModel:
        """The model, with nothing but its embeddings in memory."""
        return self.outline.model

    @property
    def is_tied(self) -> bool:
        """Whether its LM head is its input embedding."""
        head = self.model.get_output_embeddings()
        return head is not None and head.weight is self.model.get_input_embeddings().weight

    @property
    def size(self) -> int:
        """Rows of its input embedding."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def rows(self, side: str) -> torch.Tensor:
        """Return the rows (vocab, d) of `side` in fp32; (vocab, 1) for `bias`."""
        head = self.model.get_output_embeddings()
        if side == "bias":
            return head.bias.detach().float()[:, None]
        end = self.model.get_input_embeddings() if side == "input" else head
        return end.weight.detach().float()


@dataclass(frozen=True, kw_only=True)
class Siblings:
    """The three models, whose vocabularies and sizes fit."""

    base: Source
    instruct: Source
    adapted: Source
    tokens: NewTokens
    """The adapted vocabulary in terms of the base's."""

    @property
    def sides(self) -> tuple[str, ...]:
        """The matrices with a row per token: input, output (unless tied) and bias (if any)."""
        head = self.instruct.model.get_output_embeddings()
        sides = ("input",) if self.instruct.is_tied else ("input", "output")
        return (*sides, "bias") if getattr(head, "bias", None) is not None else sides

    @property
    def keeps_vocabulary(self) -> bool:
        """Whether the adapted model has the base's vocabulary, padding of its rows included."""
        same = self.adapted.tokenizer.get_vocab() == self.base.tokenizer.get_vocab()
        return same and self.adapted.size == self.base.size <= self.instruct.size

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the result."""
        return _chat_tokenizer(self.base, self.instruct, self.adapted)

    @cached_property
    def special(self) -> Pairs:
        """The special tokens of the instruct model that the result has."""
        theirs, ours = (t.get_vocab() for t in (self.instruct.tokenizer, self.tokenizer))
        names = _special_names(self.instruct.tokenizer)
        by_name = {ours[n]: theirs[n] for n in names if n in ours and n in theirs}
        by_role = {new: old for new, old in self.tokens.anchors if new in self.tokens.special}
        return sorted((by_role | by_name).items())

    @property
    def added(self) -> Pairs:
        """Those of `special` that the adapted model has no rows for."""
        return [(new, old) for new, old in self.special if new >= self.adapted.size]

    @property
    def report(self) -> dict[str, Any]:
        """What the result is made of, for the record."""
        tokens, names = self.tokens, self.tokenizer.convert_ids_to_tokens
        return {
            "models": {one.key: one.path for one in (self.base, self.instruct, self.adapted)},
            "shared_tokens": len(tokens.anchors),
            "new_tokens": len(tokens.ids),
            "special_tokens": len(self.special),
            "added_tokens": names([new for new, _ in self.added]),
        }


def open_siblings(settings: ModelsSettings, cfg: RunConfig) -> Siblings:
    """Open the models of `settings`. Raises `UserError` if they are no siblings."""
    found = [_open(key, path, cfg.model) for key, path in settings.inputs.items()]
    check_siblings({one.key: _form(one) for one in found}, settings.inputs)
    base, instruct, adapted = found
    _check_vocabularies(base, instruct, adapted)
    for one in (instruct, adapted):
        if one.is_tied != base.is_tied:
            states = ["tied to" if s.is_tied else "separate from" for s in (one, base)]
            rule = f"its LM head is {states[0]} its input embedding, that of {base.key} {states[1]}"
            raise UserError(one.key, one.path, rule, "use a model in the form of the base")
    size = min(base.size, instruct.size)
    tokens, _ = match_rows(base.tokenizer, adapted.tokenizer, cfg.transplant, cfg.seed, size)
    return Siblings(base=base, instruct=instruct, adapted=adapted, tokens=tokens)


def _open(key: str, path: str, models: ModelSettings) -> Source:
    where = model_folder(key, path)
    own = settings_for(where, models)
    with naming(key, path):
        try:
            outline = open_outline(where, own, "fp32")
            if (precision := _stored_precision(outline)) != "fp32":
                outline = open_outline(where, own, precision)
            outline.load_ends()
        except NotStreamed as reason:
            fix = "load it with transformers and save it again with save_pretrained"
            raise UserError(key, path, f"cannot be read one tensor at a time: {reason}", fix) from (
                reason
            )
        return Source(key=key, path=path, outline=outline, tokenizer=load_tokenizer(where, own))


def _stored_precision(outline: Outline) -> str:
    """Return the number type of most weights in the files: fp32, bf16 or fp16."""
    sizes: Counter[torch.dtype] = Counter()
    for name in outline.stored:
        tensor = outline.stored.empty(name)
        sizes[tensor.dtype] += tensor.numel()
    return max(DTYPES, key=lambda name: sizes[DTYPES[name]])


def _form(source: Source) -> Form:
    stored = source.outline.stored
    shapes = {name: tuple(stored.empty(name).shape) for name in source.outline.types}
    return Form(str(source.model.config.model_type), source.size, shapes)


def _check_vocabularies(base: Source, instruct: Source, adapted: Source) -> None:
    """Raise `UserError` if `instruct` lacks a token of the base, or `adapted` a row of a token."""
    theirs, ours = instruct.tokenizer.get_vocab(), base.tokenizer.get_vocab()
    if other := sorted(token for token, index in ours.items() if theirs.get(token) != index):
        rule = f"{len(other)} of {len(ours)} tokens of {base.key}={base.path} are not the same "
        rule += f"tokens here, such as {other[0]!r}"
        raise UserError(instruct.key, instruct.path, rule, "use a model with the base's tokenizer")
    if (largest := max(adapted.tokenizer.get_vocab().values())) >= adapted.size:
        rule = f"its tokenizer has ids up to {largest}, its embedding {adapted.size} rows"
        raise UserError(adapted.key, adapted.path, rule, "use the tokenizer's own model")


def _special_names(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the special tokens by string: roles, chat and reserved tokens; no plain text."""
    found = special_tokens_of(tokenizer)
    roles = {found.unk, found.bos, found.eos, found.pad} - {None}
    return {name for name in (*roles, *found.markers) if name and not is_text(name)}


def _chat_tokenizer(base: Source, instruct: Source, adapted: Source) -> PreTrainedTokenizerBase:
    """Return the tokenizer of `adapted` with roles, chat template and chat tokens of `instruct`.

    Tokens are added if the base does not have them or the chat template names them.
    """
    result, chat = adapted.tokenizer, instruct.tokenizer
    template = getattr(chat, "chat_template", None)
    known, own = result.get_vocab(), base.tokenizer.get_vocab()
    missing = _special_names(chat) - known.keys()
    wanted = {name for name in missing if name not in own or name in str(template or "")}
    added = [token for _, token in sorted(chat.added_tokens_decoder.items())]
    result.add_tokens([token for token in added if str(token) in wanted])
    known = result.get_vocab()
    for role in ("bos_token", "eos_token", "pad_token"):
        if (token := getattr(chat, role)) in known:
            setattr(result, role, token)
    if template is not None:
        result.chat_template = template
    return result


def write_model(
    siblings: Siblings,
    rows: Mapping[str, torch.Tensor],
    folder: Path,
    precision: torch.dtype,
    tensor_of: TensorOf | None = None,
) -> None:
    """Write the result as a model folder: `rows` by side, for the ids of the adapted model.

    Rows of added tokens are those of the instruct model. `tensor_of` gives all other tensors by
    their names in the files; None: those of the instruct model.
    """
    outline = replace(siblings.instruct.outline, precision=precision)
    model = outline.model.to(precision)
    full = {side: _with_added(siblings, side, own).to(precision) for side, own in rows.items()}
    bias = full["bias"][:, 0] if "bias" in full else None
    replace_rows(model, full["input"], full.get("output"), bias)
    configs: dict[str, Any] = {
        "config": model.config,
        "generation_config": model.generation_config,
    }
    move_token_ids(configs, siblings.instruct.tokenizer, siblings.tokenizer, siblings.special)
    check_replaced(model)
    outline.save(siblings.tokenizer, folder, tensor_of)


def _with_added(siblings: Siblings, side: str, rows: torch.Tensor) -> torch.Tensor:
    """Return `rows` (n, d) with those of the added tokens after them."""
    if not siblings.added:
        return rows
    old = [index for _, index in siblings.added]
    return torch.cat([rows, siblings.instruct.rows(side)[old]])

"""Token ids in a model's configuration, moved to the new vocabulary by their strings.

Chat models stop at a list of tokens, multimodal ones name a token for images, some suppress tokens
while generating. Each such id means a string, and keeps meaning it.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

__all__ = ["move_token_ids"]

NAMES = re.compile(
    r"(.+_)?token_(ids?|index)|(begin_)?suppress_tokens|bad_words_ids|force_words_ids"
)
ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")
Move = Callable[[int], int | None]


def move_token_ids(
    configs: dict[str, Any],
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    anchors: Iterable[tuple[int, int]],
) -> list[str]:
    """Replace the ids of `old` in `configs` (by name: config, generation_config) by those of `new`.

    Every `*_token_id`, `*_token_ids`, `*_token_index` and the lists of suppressed and forced tokens
    count, in nested configurations, too; a list stays a list. Ids are matched by string, then by
    `anchors` (new id, old id). BOS, EOS and padding that are unset, or that name an ordinary token,
    are those of `new`. Returns the dropped ones as `config.image_token_id (<image>)`: ids whose
    token `new` does not have.
    """
    by_row = {old_id: new_id for new_id, old_id in reversed(list(anchors))}
    names = {index: token for token, index in old.get_vocab().items()}
    vocabulary, special = new.get_vocab(), set(old.added_tokens_decoder) | set(old.all_special_ids)
    dropped: list[str] = []

    def moved(place: str) -> Move:
        def move(index: int) -> int | None:
            target = vocabulary.get(names.get(index, ""), by_row.get(index))
            if target is None and index >= 0:
                dropped.append(f"{place} ({names.get(index, index)})")
            return index if index < 0 else target

        return move

    for label, config in configs.items():
        for role in ROLES:
            value, token = getattr(config, role, None), getattr(new, role)
            if isinstance(value, int) and value not in special and token is not None:
                setattr(config, role, None)  # a default of the class, not a token of this model
        _walk(vars(config), label, moved)
        for role in ROLES:
            if getattr(config, role, None) is None:
                setattr(config, role, getattr(new, role))
        _fill_required(config, new)
    return list(dict.fromkeys(dropped))


def _fill_required(config: Any, new: PreTrainedTokenizerBase) -> None:
    """Give ids that the class requires and `new` lacks to BOS, or EOS: None would not be loaded.

    Such a class has a role that its language model does not use (a CLS token in a decoder).
    """
    hints = getattr(type(config), "__annotations__", {})
    first = new.bos_token_id if new.bos_token_id is not None else new.eos_token_id
    for name, hint in hints.items():
        if NAMES.fullmatch(name) and hint in (int, "int") and getattr(config, name, 0) is None:
            setattr(config, name, first)


def _walk(values: dict[str, Any], place: str, moved: Callable[[str], Move]) -> None:
    """Move the ids in a mapping of settings, and in the configurations inside it."""
    for name, value in list(values.items()):
        if isinstance(value, PreTrainedConfig | GenerationConfig):
            _walk(vars(value), f"{place}.{name}", moved)
        elif isinstance(value, dict):
            _walk(value, f"{place}.{name}", moved)
        elif isinstance(name, str) and NAMES.fullmatch(name):
            values[name] = _moved(value, moved(f"{place}.{name}"))


def _moved(value: Any, move: Move) -> Any:
    """Return an id or a list of ids (or of lists) moved; None if nothing of it is left.

    A list inside a list is a sequence of tokens: it is moved whole or not at all.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return move(value)
    if not isinstance(value, list | tuple):
        return value
    kept = []
    for item in value:
        one = _moved(item, move)
        if one is not None and (isinstance(item, int) or len(one) == len(item)):
            kept.append(one)
    return kept or (None if value else value)

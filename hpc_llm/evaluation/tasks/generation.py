"""Greedy answers of a model to the prompts of a task."""

from collections.abc import Sequence
from dataclasses import dataclass

from hpc_llm.evaluation.samples import continue_encoded
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.settings.task import TaskSettings

__all__ = ["Answer", "generated"]


@dataclass(frozen=True)
class Answer:
    """A generated answer."""

    text: str
    """What follows the prompt, up to the first of `until`, without white space around it."""
    cut: bool
    """Whether the prompt was cut to leave room for it."""


def generated(scorer: Scorer, prompts: Sequence[str], task: TaskSettings) -> list[Answer]:
    """Return the greedy answer to each prompt (collective: prompts are dealt to the ranks).

    A prompt that does not leave `max_new_tokens` of the window free is cut on the left.
    """
    room = scorer.window - task.max_new_tokens
    start = [] if scorer.first_token is None else [scorer.first_token]
    encoded = scorer.encode(list(prompts)) if prompts else []
    kept = [ids[-max(1, room - len(start)) :] for ids in encoded]
    texts = continue_encoded(
        scorer.model,
        scorer.tokenizer,
        [start + ids for ids in kept],
        task.max_new_tokens,
        task.until,
    )
    return [
        Answer(_until(text, task.until).strip(), len(own) < len(ids))
        for text, own, ids in zip(texts, kept, encoded, strict=True)
    ]


def _until(text: str, ends: Sequence[str]) -> str:
    """Return `text` up to the first of `ends` after its leading white space."""
    begin = len(text) - len(text.lstrip())
    found = [place for end in ends if (place := text.find(end, begin)) >= 0]
    return text[: min(found, default=len(text))]

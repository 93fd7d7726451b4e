"""Questions that fit the window of a model: examples are dropped before the prompt is cut."""

from collections.abc import Sequence
from dataclasses import replace

from hpc_llm.evaluation.tasks.questions import Question
from hpc_llm.evaluation.tasks.scorer import Scorer

__all__ = ["fitted"]


def fitted(questions: Sequence[Question], scorer: Scorer, answer_tokens: int) -> list[Question]:
    """Return the questions with as many of their last examples as fit into the window.

    All choices of a question have the same examples. A generated answer of `answer_tokens` tokens
    must fit, too.
    """
    return [_fitted(question, scorer, answer_tokens) for question in questions]


def _fitted(question: Question, scorer: Scorer, answer_tokens: int) -> Question:
    if not question.shots:
        return question
    fewer = [replace(question, shots=question.shots[i:]) for i in range(len(question.shots) + 1)]
    longest = max(question.choices, key=lambda choice: len(choice.encode()))
    scored = [one.context + one.separator + longest for one in fewer]
    lengths = [len(ids) for ids in scorer.encode(scored)]
    if question.generates:
        prompts = scorer.encode([one.context for one in fewer])
        room = answer_tokens + (scorer.first_token is not None)
        lengths = [max(n, len(ids) + room) for n, ids in zip(lengths, prompts, strict=True)]
    pairs = zip(fewer, lengths, strict=True)
    return next((one for one, length in pairs if length <= scorer.window), fewer[-1])

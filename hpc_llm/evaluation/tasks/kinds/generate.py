"""kind: generate: the model answers in its own words, greedily, and the text is compared.

The first accepted answer is also scored after the prompt, for the metric `bpb`.
"""

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import Asked

__all__ = ["ask"]


def ask(record: Fields) -> Asked:
    """Return the prompt and the accepted answers. Raises `UserError` for an empty prompt."""
    prompt, answers = record.prompt(), record.answers()
    if not prompt.strip():
        raise record.bad("the prompt is empty")
    return Asked(
        prompt=prompt,
        separator=record.task.separator,
        choices=answers[:1],
        gold=0,
        generates=True,
        answers=answers,
    )

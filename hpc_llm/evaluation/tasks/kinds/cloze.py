"""kind: cloze: each choice fills the gap `@placeholder` of the prompt, as in ReCoRD and RuCoS.

The choice and all that follows are scored, after what precedes the gap.
"""

from hpc_llm.evaluation.tasks.fields import Fields
from hpc_llm.evaluation.tasks.questions import NO_CHOICE, Asked
from hpc_llm.evaluation.tasks.texts import exact_match

__all__ = ["GAP", "ask"]

GAP = "@placeholder"


def ask(record: Fields) -> Asked:
    """Return the filled texts, and the accepted answers, of which no choice need be one.

    Raises `UserError` for a prompt without a gap.
    """
    before, gap, after = record.prompt().rpartition(GAP)
    if not gap:
        raise record.bad(f"the prompt has no gap {GAP}")
    texts, answers = record.choices(), record.answers()
    right = [any(exact_match(text, answer) for answer in answers) for text in texts]
    return Asked(
        prompt=before.rstrip(),
        separator=before[len(before.rstrip()) :],
        choices=tuple(text + after for text in texts),
        gold=right.index(True) if True in right else NO_CHOICE,
        answers=answers,
        texts=texts,
    )

"""Evaluate one task at one point, resumably."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hpc_llm.errors import Stopped
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tasks.files import write_task
from hpc_llm.evaluation.tasks.fitting import fitted
from hpc_llm.evaluation.tasks.generation import Answer, generated
from hpc_llm.evaluation.tasks.questions import Question
from hpc_llm.evaluation.tasks.records import read_questions
from hpc_llm.evaluation.tasks.results import item_line
from hpc_llm.evaluation.tasks.scorer import Score, Scorer
from hpc_llm.rundir import append_line, read_jsonl, write_text
from hpc_llm.settings.task import TaskSettings
from hpc_llm.training import process_group

__all__ = ["Place", "evaluate_task", "partial_file"]

CHUNK = 64  # questions scored together and written at once; fixed, so that batches never differ


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the results of tasks at one point go."""

    folder: Path
    """`evaluate/POINT/` of the run folder."""
    fingerprint: str
    """Fingerprint of the stage: scores of an interrupted one are kept if it is the same."""
    stop_reason: Callable[[], str | None]
    """The reason to stop between two chunks; None: continue."""


def partial_file(place: Place, name: str) -> Path:
    """Return the file of the scores of a task until its stage is finished.

    Beside the folder, which is moved aside when a stage reruns with other settings.
    """
    return place.folder.parent / f".{place.folder.name}.{name}.partial.jsonl"


def evaluate_task(name: str, scorer: Scorer, place: Place, seed: int) -> Measure | None:
    """Score the questions of a task, write its two files, and return its measure (collective).

    None: its answers are hidden, and the files hold those of the model. Questions that an
    interrupted evaluation has scored are not scored again, on any number of ranks. Raises `Stopped`
    on all ranks at a stop request, after the scores are saved.
    """
    task = scorer.settings.task(name)
    questions = process_group.agreed(lambda: read_questions(name, scorer.settings))
    lines = _all_lines(name, task, questions, scorer, place)
    return process_group.on_first_rank(lambda: write_task(place.folder, name, task, lines, seed))


def _all_lines(
    name: str, task: TaskSettings, questions: list[Question], scorer: Scorer, place: Place
) -> list[dict[str, Any]]:
    """Return the line of each question, in order; one chunk per rank is scored at a time."""
    path = partial_file(place, name)
    done = process_group.on_first_rank(lambda: _resumed(path, place.fingerprint))
    todo = [(begin, chunk) for begin, chunk in _chunks(questions) if begin not in done]
    _, ranks = process_group.place()
    for start in range(0, len(todo), ranks):
        _stop_if_requested(place)
        begins, chunks = zip(*todo[start : start + ranks], strict=True)
        found = dict(zip(begins, _score(chunks, scorer, task), strict=True))
        process_group.on_first_rank(partial(_save, path, found))
        done |= found
    return [line for begin in sorted(done) for line in done[begin]]


def _stop_if_requested(place: Place) -> None:
    """Raise `Stopped` on all ranks if one of them must stop."""
    reasons = process_group.on_every_rank(place.stop_reason)
    if reason := next(filter(None, reasons), None):
        raise Stopped(reason)


def _save(path: Path, found: Mapping[int, list[dict[str, Any]]]) -> None:
    for begin, lines in found.items():
        append_line(path, {"begin": begin, "lines": lines})


def _resumed(path: Path, fingerprint: str) -> dict[int, list[dict[str, Any]]]:
    """Return the saved lines of each chunk; start the file if there are none."""
    done = _saved(path, fingerprint)
    if not done:
        write_text(path, json.dumps({"fingerprint": fingerprint}) + "\n")
    return done


def _saved(path: Path, fingerprint: str) -> dict[int, list[dict[str, Any]]]:
    """Return the lines of each chunk that was scored with these settings, by its first index."""
    entries = list(read_jsonl(path))
    if not entries or entries[0].get("fingerprint") != fingerprint:
        return {}
    return {entry["begin"]: entry["lines"] for entry in entries[1:]}


def _chunks(questions: list[Question]) -> Iterator[tuple[int, list[Question]]]:
    for begin in range(0, len(questions), CHUNK):
        yield begin, questions[begin : begin + CHUNK]


def _score(
    chunks: Sequence[Sequence[Question]], scorer: Scorer, task: TaskSettings
) -> list[list[dict[str, Any]]]:
    """Return the lines of chunks; the questions of a chunk are scored together."""
    chunks = [fitted(chunk, scorer, task.max_new_tokens) for chunk in chunks]
    requests = [[each for question in chunk for each in question.requests] for chunk in chunks]
    prompts = [q.context for chunk in chunks for q in chunk if q.generates]
    answers = iter(generated(scorer, prompts, task))
    return [
        _lines(chunk, iter(scores), answers, task.metric[0])
        for chunk, scores in zip(chunks, scorer.scores_of_each(requests), strict=True)
    ]


def _lines(
    questions: Sequence[Question], scores: Iterator[Score], answers: Iterator[Answer], metric: str
) -> list[dict[str, Any]]:
    """Return the lines of questions; `scores` are those of their requests, one after another."""
    lines = []
    for question in questions:
        own = [next(scores) for _ in question.requests]
        answer = next(answers) if question.generates else None
        cut = any(score.cut for score in own) or (answer is not None and answer.cut)
        text = None if answer is None else answer.text
        lines.append(item_line(question, [score.nats for score in own], cut, metric, text))
    return lines

"""Read the questions of a task from its files, with all checks that need no model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_llm.corpus import expand_entries
from hpc_llm.errors import UserError
from hpc_llm.evaluation.tasks.fields import Fields, Templates
from hpc_llm.evaluation.tasks.kinds import kind_code, kind_names, load_kind
from hpc_llm.evaluation.tasks.metrics import load_metric, metric_code, metric_names
from hpc_llm.evaluation.tasks.questions import NO_CHOICE, Asked, Question, Scored
from hpc_llm.evaluation.tasks.readers import ENDINGS, records
from hpc_llm.evaluation.tasks.shots import Shots
from hpc_llm.settings import EvaluationSettings
from hpc_llm.settings.task import TaskSettings

__all__ = ["read_questions", "shot_paths", "task_code", "task_paths"]


def task_paths(name: str, settings: EvaluationSettings) -> list[Path]:
    """Return the files of a task, patterns expanded and sorted.

    Raises `UserError` for a missing file, a pattern without a match and an unknown extension.
    """
    given = name in settings.task_files
    key = f"evaluation.task_files.{name}" if given else f"task.{name}.files"
    fix = f"set evaluation.task_folder=DIR or evaluation.task_files.{name}=FILE"
    return _paths(settings.task(name).files, key, fix)


def shot_paths(name: str, settings: EvaluationSettings) -> list[Path]:
    """Return the files of the examples of a task; none without, or if its own files give them."""
    task = settings.task(name)
    fix = f"set evaluation.task_folder=DIR or evaluation.task_shots.{name}=0"
    return _paths(task.shots_from, f"task.{name}.shots_from", fix) if task.shots else []


def _paths(files: list[str], key: str, fix: str) -> list[Path]:
    try:
        paths = [Path(path) for path in expand_entries(files, key)]
    except UserError as error:
        raise UserError(key, error.value, error.rule, f"{error.fix}; {fix}") from error
    for path in paths:
        if not path.name.endswith(ENDINGS):
            rule = f"unknown extension; supported are {', '.join(ENDINGS)}"
            raise UserError(key, path, rule, "convert the file to JSON Lines")
    return paths


def task_code(name: str, task: TaskSettings) -> dict[str, Any]:
    """Return what stands for the code of a task's plug-ins in fingerprints; {} if it uses none.

    Raises `UserError` for an unknown kind or metric.
    """
    _check_names(name, task)
    found = {name: metric_code(name).get("code") for name in task.metric}
    return kind_code(task.kind) | {f"metric.{name}": code for name, code in found.items() if code}


def read_questions(name: str, settings: EvaluationSettings) -> list[Question]:
    """Return the questions of a task in the order of its records, up to `task_limit`.

    Raises `UserError` for an unknown kind or metric, a template with an error, and a record that
    lacks a field, has fewer than two choices, an empty one, or an answer that is none of them.
    """
    task = settings.task(name)
    _check_names(name, task)
    questions = list(_questions(name, settings, task))
    if not questions:
        raise UserError(f"task.{name}.files", ", ".join(task.files), "hold no records")
    for metric in task.metric:
        _try_metric(name, metric, questions)
    return _spaced(questions, settings.task_limit)


def _questions(name: str, settings: EvaluationSettings, task: TaskSettings) -> Iterator[Question]:
    solved, ask = Templates(name, task), load_kind(task.kind)
    templates = Templates(name, task, submits=settings.submits(task))
    own, others = task_paths(name, settings), shot_paths(name, settings)
    shown = ", ".join(path.name for path in others or own)
    shots = Shots(name=name, count=task.shots, files=shown)
    if task.shots:
        shots.take(_asked_of(others or own, solved, ask))
    excluded = set() if others else shots.ids
    for fields, question in _asked_of(own, templates, ask):
        if question.id not in excluded:
            given = shots.of(fields) if task.shots else ()
            number = fields.submission_id() if templates.submits else None
            yield replace(question, preamble=fields.preamble(), shots=given, submission_id=number)


def _asked_of(
    paths: list[Path], templates: Templates, ask: Callable[[Fields], Asked]
) -> Iterator[tuple[Fields, Question]]:
    """Yield the fields and the question of each record."""
    for path in paths:
        for where, record in records(path):
            for fields in Fields(templates, record, where).questions():
                yield fields, _question(f"{path.name}:{where.rsplit(':', 1)[1]}", fields, ask)


def _question(line: str, fields: Fields, ask: Callable[[Fields], Asked]) -> Question:
    """Return a question of a record; its id is `FILE:LINE`, then its place inside the record.

    All but the last index of that place name its unit.
    """
    asked = _asked(ask, fields)
    _check(asked, fields)
    own = {key: getattr(asked, key) for key in Asked.__dataclass_fields__}
    places = [line, *map(str, fields.place)]
    unit = ".".join(places[:-1]) if fields.place else None
    return Question(id=".".join(places), unit=unit, groups=fields.groups(), **own)


def _asked(ask: Callable[[Fields], Asked], fields: Fields) -> Asked:
    """Return the question of a record. Raises `UserError` for a plug-in that fails."""
    try:
        found = ask(fields)
        if not isinstance(found, Asked):
            raise TypeError(f"it returned {found!r}, not Asked")
    except UserError:
        raise
    except Exception as error:
        kind, rule = fields.task.kind, f"{type(error).__name__}: {error}"
        raise fields.bad(f"kind {kind} fails: {rule}") from error
    return found


def _check(asked: Asked, fields: Fields) -> None:
    """Raise `UserError` for a question that cannot be scored."""
    if not asked.choices:
        raise fields.bad(f"kind {fields.task.kind} gives no text to score")
    if not all(choice.strip() for choice in asked.choices):
        raise fields.bad(f"choice {[c.strip() for c in asked.choices].index('')} is empty")
    if not (0 <= asked.gold < len(asked.choices) or (asked.answers and asked.gold == NO_CHOICE)):
        raise fields.bad(f"gold is {asked.gold}, but there are {len(asked.choices)} choices")
    try:
        "".join((asked.prompt, *asked.choices, *asked.answers)).encode()
    except UnicodeEncodeError as error:
        raise fields.bad(f"its text is not valid Unicode ({error.reason})") from error


def _check_names(name: str, task: TaskSettings) -> None:
    for key, words, known in (
        ("kind", [task.kind], kind_names()),
        ("metric", task.metric, metric_names()),
    ):
        for word in words:
            if word not in known:
                fix = f"choose one of {', '.join(known)}"
                raise UserError(f"task.{name}.{key}", word, "unknown", fix)


def _try_metric(name: str, metric: str, questions: list[Question]) -> None:
    """Raise `UserError` if a metric does not accept the questions of a task."""
    outcome, sizes = load_metric(metric), set()
    try:
        for question in questions:
            sizes.add(len(outcome(_stand_in(question)).parts))
        if len(sizes) > 1:
            rule = "needs the same number of choices in every question"
            raise UserError("metric", metric, rule, "use acc")
    except UserError as error:
        raise UserError(f"task.{name}.metric", metric, error.rule, error.fix) from error


def _stand_in(question: Question) -> Scored:
    """Return equal scores of a question's choices, in place of a model's."""
    scores = [-1.0] * len(question.choices)
    return Scored(
        scores=scores,
        neutral=None if question.neutral_prompt is None else scores,
        bytes=[len(choice.encode()) for choice in question.choices],
        gold=question.gold,
        answer="" if question.answers else None,
        answers=question.answers,
        texts=question.texts,
    )


def _spaced(questions: list[Question], limit: int | None) -> list[Question]:
    """Return at most `limit` questions, evenly spaced: files are often sorted by subject."""
    if limit is None or limit >= len(questions):
        return questions
    return [questions[index * len(questions) // limit] for index in range(limit)]

"""Benchmark tasks of a run: what their results depend on, and checks before the first stage.

No torch here: it also runs on login nodes. Runs without tasks do not even import jinja2.
"""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpc_llm.corpus import expand_entries
from hpc_llm.distributed import say
from hpc_llm.errors import UserError
from hpc_llm.rundir import fingerprint_path
from hpc_llm.settings import EvaluationSettings, RunConfig

__all__ = ["check_questions", "check_task_points", "counting_tasks", "without_tasks"]


def without_tasks(settings: EvaluationSettings) -> dict[str, Any]:
    """Return the settings that affect bits per byte; tasks, the meter and the ranks do not."""
    found = {key: v for key, v in asdict(settings).items() if not key.startswith("task")}
    for key in ("partition", "meter", "submission"):
        del found[key]
    return found


def counting_tasks(settings: EvaluationSettings, point: str) -> dict[str, Any]:
    """Return all that the results of tasks at a point depend on; {} without tasks.

    Files count by their content. Raises `UserError` for a missing file.
    """
    names = settings.tasks_at(point)
    if not names:
        return {}
    from hpc_llm.evaluation.tasks import shot_paths, task_code, task_paths

    found: dict[str, Any] = {}
    for name in names:
        task = settings.task(name)
        own = asdict(task) | task_code(name, task)
        for key, paths in (("files", task_paths), ("shots_from", shot_paths)):
            own[key] = {path.name: fingerprint_path(path) for path in paths(name, settings)}
        found[name] = own
    paired = point != "base" and "base" in settings.task_points
    return {
        "tasks": found
        | {"limit": settings.task_limit, "paired": paired, "submission": settings.submission}
    }


def check_task_points(cfg: RunConfig, points: Iterable[str]) -> None:
    """Raise `UserError` if tasks are to be evaluated at a point that the run does not have."""
    known, chosen = list(points), cfg.evaluation.task_points
    if cfg.evaluation.tasks and not chosen:
        raise UserError(
            "evaluation.task_points", "[]", "is empty", f"choose from {', '.join(known)}"
        )
    for point in chosen if cfg.evaluation.tasks else []:
        if point not in known:
            fix = f"choose from {', '.join(known)}"
            raise UserError("evaluation.task_points", point, "the run has no such point", fix)


def check_questions(cfg: RunConfig, points: Iterable[str]) -> None:
    """Raise `UserError` if a task of these points has a template or a record with an error, or a
    file that is also training text."""
    settings = cfg.evaluation
    names = dict.fromkeys(name for point in points for name in settings.tasks_at(point))
    if not names:
        return
    from hpc_llm.evaluation.tasks import read_questions, task_paths

    for name in names:
        _refuse_training_text(cfg, name, task_paths(name, settings))
        read_questions(name, settings)
        language = settings.task(name).language
        if language is not None and not cfg.corpus.texts_in(language):
            say(f"task {name} is in the {language} language, of which this run has no text")


def _refuse_training_text(cfg: RunConfig, task: str, paths: list[Path]) -> None:
    """Raise `UserError` if a file of a task has the content of a file of the corpus."""
    for text in cfg.corpus.names:
        key, entries = cfg.corpus.entries(text)
        for path in map(Path, expand_entries(entries, key)):
            if path.is_file() and any(_are_equal(path, own) for own in paths):
                rule = f"holds the questions of task {task}: its scores would mean nothing"
                raise UserError(key, path, rule, "remove the file or the task")


def _are_equal(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    return fingerprint_path(one) == fingerprint_path(other)

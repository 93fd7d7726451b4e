"""The two files of a task at one point: `TASK.jsonl`, a line a question, and `TASK.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hpc_llm.distributed import say
from hpc_llm.evaluation.measures import Measure
from hpc_llm.evaluation.tasks.paired import Change, change_from, lines_at
from hpc_llm.evaluation.tasks.results import estimate, group_means, outcomes, task_estimate
from hpc_llm.rundir import write_json, write_text
from hpc_llm.settings.task import TaskSettings
from hpc_llm.tracking.events import plain

__all__ = ["changes_at", "write_task"]

REFERENCE = "base"  # the point that others are compared with


def write_task(
    folder: Path, name: str, task: TaskSettings, lines: list[dict[str, Any]], seed: int
) -> Measure | None:
    """Write the files of a task into the folder of a point; print and return its measure.

    None: its answers are hidden, so the lines are answers for its benchmark.
    """
    write_text(
        folder / f"{name}.jsonl",
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
    )
    if "submission_id" in lines[0]:
        result = {"task": name, "metrics": {}, "answers": len(lines), "settings": asdict(task)}
        write_json(folder / f"{name}.json", result)
        say(f"  {folder.name}: task {name}, {len(lines)} answers for {task.submission}, no score")
        return None
    main = task_estimate(task, lines, seed).measure
    change = _change(folder, name, task, lines, seed)
    cut = {
        "cut_prompts": sum(line["cut"] for line in lines),
        "cut_shots": sum(line.get("shots", 0) < task.shots for line in lines),
    }
    result = _metrics(task, lines, seed) | cut | {"task": name, "settings": asdict(task)}
    if change is not None:
        result["change_from_base"] = change.as_dict()
    write_json(folder / f"{name}.json", plain(result))  # NaN becomes null
    rules = zip(cut.values(), ("prompts cut", "with fewer shots"), strict=True)
    counted = [f"{count} {rule}" for count, rule in rules if count]
    scored = f"{_shown(task)} {_text(main)}"
    parts = [scored, *([] if change is None else [_change_text(change)]), *counted]
    say(f"  {folder.name}: task {name}, {', '.join(parts)}")
    return main


def _metrics(task: TaskSettings, lines: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    found = {metric: estimate(metric, lines, seed).measure for metric in task.metric}
    if task.mean_of:
        found["mean"] = task_estimate(task, lines, seed).measure
    result: dict[str, Any] = {"metrics": {key: _with_chance(one) for key, one in found.items()}}
    if task.group_by:
        alike = [line | {"groups": []} for line in lines]
        result["micro"] = _with_chance(estimate(task.metric[0], alike, seed).measure)
    first = [outcome.value for outcome in outcomes(task.metric[0], lines)]
    return result | {"groups": group_means(first, [line["groups"] for line in lines])}


def _change(
    folder: Path, name: str, task: TaskSettings, lines: list[dict[str, Any]], seed: int
) -> Change | None:
    """Return the change from the base model's score on the same questions, if it has one."""
    before = None if folder.name == REFERENCE else lines_at(folder.parent / REFERENCE, name)
    return None if before is None else change_from(before, lines, task, seed)


def changes_at(folder: Path, names: Sequence[str]) -> dict[str, Measure]:
    """Return the changes from the base model that `write_task` has written, by task.

    A score at chance is no change, whatever the base model had.
    """
    found = {}
    for name in names:
        result = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        change = result.get("change_from_base")
        if change is None:
            continue
        main = "mean" if "mean" in result["metrics"] else result["settings"]["metric"][0]
        if change["value"] is not None and not result["metrics"][main]["at_chance"]:
            known = {field.name for field in fields(Measure)}
            found[name] = Measure(**{key: v for key, v in change.items() if key in known})
    return found


def _shown(task: TaskSettings) -> str:
    return f"mean of {', '.join(task.mean_of)}" if task.mean_of else task.metric[0]


def _text(found: Measure) -> str:
    """Return the value with its interval; at chance it says so."""
    level = "" if found.chance is None else f", chance is {found.chance:.3f}"
    level = f", chance ({found.chance:.3f})" if found.at_chance else level
    return f"{found.value:.4f}{_interval(found)}, n={found.n}{level}"


def _change_text(change: Change) -> str:
    found = change.measure
    return f"from base {found.value:+.4f}{_interval(found)}, McNemar p={change.p_value:.3g}"


def _interval(found: Measure) -> str:
    return "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"


def _with_chance(found: Measure) -> dict[str, Any]:
    return found.as_dict() | {"at_chance": found.at_chance}

"""Submit a sweep with launch=slurm: one job array per part of the recipe, one task per trial."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hpc_llm.app.run_folders import open_folder
from hpc_llm.app.submit import refuse_while_queued, submitted_jobs
from hpc_llm.app.trials import PlannedTrial
from hpc_llm.distributed import Ranks, say
from hpc_llm.launch import (
    Part,
    SubmittedJob,
    copy_code,
    divide,
    job_script,
    log_path,
    record_jobs,
    require_sbatch,
    submit_chains,
)
from hpc_llm.pipeline import commit
from hpc_llm.rundir import Sweep, SweepFolder

__all__ = ["arrays_of", "submit_sweep"]

Group = tuple[list[Part], list[PlannedTrial]]
"""Trials with the same unfinished parts and the same options, which share arrays."""


def submit_sweep(
    folder: SweepFolder, sweep: Sweep, planned: Sequence[PlannedTrial], *, whole: bool
) -> int:
    """Submit the unfinished stages of the trials, all or nothing; print the array ids and return.

    An array task starts when the task with its id in the previous array has succeeded. `whole`: all
    stages of the verb are selected.
    """
    require_sbatch()
    refuse_while_queued(*(one.folder for one in planned))
    for one in planned:
        open_folder(one.cfg, Ranks())
    folder.write(sweep)
    groups = arrays_of(folder, sweep, planned, whole=whole)
    if not groups:
        say(f"{folder.path}: nothing to do, no job submitted")
        return 0
    for one in planned:
        if one.due and one.cfg.launch.snapshot:
            copy_code(one.folder.path, commit())
    chains = [scripts for scripts, _, _ in groups]
    held = bool(planned[0].cfg.launch.options.get("hold"))
    submitted = submit_chains(chains, dependency="aftercorr", held=held)
    for ids, (_, parts, trials) in zip(submitted, groups, strict=True):
        _tell(_record(folder, sweep.verb, ids, parts, trials), trials)
    path = shlex.quote(str(folder.path))
    say(f"monitor with hpc-llm sweep {path}, cancel with hpc-llm cancel {path}")
    return 0


def arrays_of(
    folder: SweepFolder, sweep: Sweep, planned: Sequence[PlannedTrial], *, whole: bool
) -> list[tuple[list[tuple[Path, str]], list[Part], list[PlannedTrial]]]:
    """Return (paths and scripts of its arrays, parts, trials) of each group that shares arrays.

    `whole`: all stages of the verb are selected. Nothing is written.
    """
    groups = _groups([one for one in planned if one.due], whole=whole)
    return [
        (
            [
                (folder.script(name), _script(folder, sweep.verb, part, trials))
                for name, part in _named(parts, group if len(groups) > 1 else None)
            ],
            parts,
            trials,
        )
        for group, (parts, trials) in enumerate(groups, start=1)
    ]


def _groups(planned: Sequence[PlannedTrial], *, whole: bool) -> list[Group]:
    """Group the trials by array: all tasks of an array have the same script."""
    groups: list[Group] = []
    for one in planned:
        parts = divide(one.cfg, one.due, whole=whole)
        for known, trials in groups:
            first = trials[0].cfg
            same = (first.launch, first.hardware.kind) == (one.cfg.launch, one.cfg.hardware.kind)
            if known == parts and same:
                trials.append(one)
                break
        else:
            groups.append((parts, [one]))
    return groups


def _named(parts: Sequence[Part], group: int | None) -> list[tuple[str, Part]]:
    """Return the parts by the names of their scripts: 1-corpus, or 2.1-corpus for group 2."""
    before = "" if group is None else f"{group}."
    return [(f"{before}{number}-{part.name}", part) for number, part in enumerate(parts, start=1)]


def _script(folder: SweepFolder, verb: str, part: Part, trials: Sequence[PlannedTrial]) -> str:
    numbers = [one.trial.number for one in trials]
    return job_script(trials[0].cfg, verb, folder.path / "config.yaml", part, numbers)


def _record(
    folder: SweepFolder,
    verb: str,
    ids: Sequence[str],
    parts: Sequence[Part],
    trials: Sequence[PlannedTrial],
) -> list[SubmittedJob]:
    """Record the arrays for the sweep, and for each trial its array tasks."""
    arrays = submitted_jobs(ids, parts, verb, lambda job: folder.path / "N" / f"slurm-{job}_N.out")
    record_jobs(folder.jobs, arrays)
    for one in trials:
        tasks = [f"{job}_{one.trial.number}" for job in ids]
        log = partial(log_path, one.cfg, one.folder.path)
        record_jobs(one.folder.jobs, submitted_jobs(tasks, parts, verb, log))
    return arrays


def _tell(arrays: Sequence[SubmittedJob], trials: Sequence[PlannedTrial]) -> None:
    count = "1 trial" if len(trials) == 1 else f"{len(trials)} trials"
    for array in arrays:
        after = f", each after its own of {array.after[0]}" if array.after else ""
        say(f"submitted array {array.job}: {array.part} of {count}{after}; logs: {array.log}")
        print(array.job)

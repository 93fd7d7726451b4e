"""Trials of a sweep: compose, number and validate them before any starts."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import UserError
from hpc_llm.launch import ranks_per_node
from hpc_llm.rundir import RunFolder, Sweep, SweepFolder, Trial
from hpc_llm.settings import RunConfig

__all__ = ["PlannedTrial", "plan_sweep"]

SHARED = (  # equal for all trials
    *("run", "runs_dir", "tracking.group", "plan.only"),
    *("launch", "launch.name", "launch.throttle", "launch.max_requeues", "launch.snapshot"),
)


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """A trial with its configuration and its unfinished stages."""

    trial: Trial
    cfg: RunConfig
    due: tuple[str, ...]

    @property
    def folder(self) -> RunFolder:
        """The run folder of the trial."""
        return RunFolder(self.cfg.folder)


def plan_sweep(arguments: Arguments) -> tuple[SweepFolder, Sweep, list[PlannedTrial]]:
    """Return the folder, its full list of trials, and the trials of this call.

    A trial that is already in the folder keeps its number; others get the next ones. Nothing is
    written. Raises `UserError` with the values of a trial that cannot start.
    """
    composed = _compose(arguments)
    cfg = composed[0][2]
    folder = _folder(composed)
    keys = list(composed[0][0])
    known = folder.read() if folder.exists() else None
    if known and known.keys != keys:
        raise UserError(
            folder.path,
            None,
            f"is a sweep over {', '.join(known.keys) or 'nothing'}, not over "
            f"{', '.join(keys) or 'nothing'}",
            "use another run=NAME",
        )
    group = known.group if known else f"{folder.path.name}-{secrets.token_hex(4)}"
    sweep = Sweep(
        verb=str(arguments.verb),
        group=cfg.tracking.group or group,
        keys=keys,
        trials=known.trials if known else [],
    )
    trials = {trial.number: trial for trial in sweep.trials}
    planned = []
    for values, overrides, cfg in composed:
        number = sweep.number(values)
        number = max(trials, default=-1) + 1 if number is None else number
        trial = Trial(number=number, values=values, overrides=overrides, stages={})
        planned.append(_planned(trial, _as_trial(cfg, sweep, number), arguments))
        trials[number] = planned[-1].trial
    ordered = [trials[number] for number in sorted(trials)]
    return folder, replace(sweep, trials=ordered), planned


Composed = tuple[dict[str, str], list[str], RunConfig]
"""The values of a trial, all its overrides, and the composed configuration."""


def _compose(arguments: Arguments) -> list[Composed]:
    from hpc_llm import config

    combinations = config.combinations(arguments.overrides)
    keys = config.swept_keys(arguments.overrides)
    for key in keys:
        if key in SHARED:
            raise UserError(
                key,
                None,
                "must be equal for all trials of a sweep",
                "set a single value",
            )
    composed = []
    for overrides in combinations:
        typed = dict(override.split("=", 1) for override in overrides if "=" in override)
        values = {key: typed[key] for key in keys}
        try:
            example = arguments.verb == "adapt"
            cfg = config.typed(config.compose(overrides, example=example))
            if arguments.verb in ("adapt", "train"):
                config.refuse_laptop_defaults(overrides, cfg, os.environ)
        except UserError as error:
            raise _of_trial(values, error) from error
        composed.append((values, overrides, cfg))
    return composed


def _folder(composed: Sequence[Composed]) -> SweepFolder:
    """Return the folder of the sweep."""
    name, *others = sorted({cfg.run or cfg.model.label for _, _, cfg in composed})
    if others:
        raise UserError(
            "run",
            None,
            f"trials would be named {name}, {others[0]}",
            "set one name for the sweep with run=NAME",
        )
    places = sorted({(cfg.runs_dir, cfg.launch.name) for _, _, cfg in composed})
    runs, launch = places[0]
    if len(places) > 1:
        raise UserError(
            f"runs_dir={runs} launch={launch}",
            None,
            "must be equal for all trials of a sweep",
            "set a single value for each",
        )
    folder = SweepFolder(Path(os.path.expanduser(runs)) / name)
    if RunFolder(folder.path).config.exists():
        raise UserError(
            folder.path,
            None,
            "is the folder of a single run",
            "use another run=NAME",
        )
    return folder


def _as_trial(cfg: RunConfig, sweep: Sweep, number: int) -> RunConfig:
    """Return the configuration of a trial: with its own folder, in the W&B group of the sweep."""
    name = f"{cfg.run or cfg.model.label}/{number}"
    return replace(cfg, run=name, tracking=replace(cfg.tracking, group=sweep.group))


def _planned(trial: Trial, cfg: RunConfig, arguments: Arguments) -> PlannedTrial:
    from hpc_llm.pipeline import check_start, choose, pipeline, unfinished, wanted

    verb, folder = str(arguments.verb), RunFolder(cfg.folder)
    ranks = cfg.launch.processes
    if cfg.launch.name == "slurm":
        ranks = cfg.cluster.nodes * ranks_per_node(cfg)
    try:
        stages = pipeline(cfg)
        chosen = choose(stages, arguments.stages)
        due = unfinished(folder, chosen, verb)
        check_start(cfg, folder, stages, due, ranks)
    except UserError as error:
        raise _of_trial(trial.values, error) from error
    own = {stage.name: stage.fingerprint for stage in wanted(chosen, verb)}
    return PlannedTrial(
        trial=replace(trial, stages=own), cfg=cfg, due=tuple(stage.name for stage in due)
    )


def _of_trial(values: dict[str, str], error: UserError) -> UserError:
    """Return the error of a trial with its values; no trial has started."""
    words = " ".join(f"{key}={value}" for key, value in values.items())
    return (
        UserError(
            f"trial {words}",
            None,
            error,
            "no trial was started",
        )
        if words
        else error
    )

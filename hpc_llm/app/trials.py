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

__all__ = ["SHARED", "ComposedTrial", "PlannedTrial", "of_trial", "plan_sweep", "plan_trials"]

SHARED = (  # equal for all trials
    *("run", "runs_dir", "tracking.group", "plan.only"),
    *("launch", "launch.name", "launch.throttle", "launch.max_requeues", "launch.snapshot"),
)


@dataclass(frozen=True, kw_only=True)
class ComposedTrial:
    """A trial with its configuration, before it has a number."""

    values: dict[str, str]
    """What distinguishes it from other trials: swept key -> value, as typed."""
    overrides: list[str]
    """All its overrides."""
    cfg: RunConfig
    names: list[str] | None
    """The stages to run; None: all of the verb."""


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """A trial with its configuration, its stages and the unfinished ones."""

    trial: Trial
    cfg: RunConfig
    names: list[str] | None
    due: tuple[str, ...]

    @property
    def folder(self) -> RunFolder:
        """The run folder of the trial."""
        return RunFolder(self.cfg.folder)


def plan_sweep(arguments: Arguments) -> tuple[SweepFolder, Sweep, list[PlannedTrial]]:
    """Return the folder, its full list of trials, and the trials of this call.

    Nothing is written. Raises `UserError` with the values of a trial that cannot start.
    """
    return plan_trials(_compose(arguments), str(arguments.verb))


def plan_trials(
    composed: Sequence[ComposedTrial], verb: str
) -> tuple[SweepFolder, Sweep, list[PlannedTrial]]:
    """Return what `plan_sweep` returns, for trials that are composed already.

    A trial that is already in the folder keeps its number; others get the next ones.
    """
    cfg = composed[0].cfg
    folder = _folder([one.cfg for one in composed])
    keys = list(composed[0].values)
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
        verb=verb,
        group=cfg.tracking.group or group,
        keys=keys,
        trials=known.trials if known else [],
    )
    trials = {trial.number: trial for trial in sweep.trials}
    planned = []
    for one in composed:
        number = sweep.number(one.values)
        number = max(trials, default=-1) + 1 if number is None else number
        trial = Trial(number=number, values=one.values, overrides=one.overrides, stages={})
        planned.append(_planned(trial, _as_trial(one.cfg, sweep, number), verb, one.names))
        trials[number] = planned[-1].trial
    ordered = [trials[number] for number in sorted(trials)]
    return folder, replace(sweep, trials=ordered), planned


def _compose(arguments: Arguments) -> list[ComposedTrial]:
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
            raise of_trial(values, error) from error
        composed.append(
            ComposedTrial(values=values, overrides=overrides, cfg=cfg, names=arguments.stages)
        )
    return composed


def _folder(configs: Sequence[RunConfig]) -> SweepFolder:
    """Return the folder of the sweep."""
    name, *others = sorted({cfg.run or cfg.model.label for cfg in configs})
    if others:
        raise UserError(
            "run",
            None,
            f"trials would be named {name}, {others[0]}",
            "set one name for the sweep with run=NAME",
        )
    places = sorted({(cfg.runs_dir, cfg.launch.name) for cfg in configs})
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


def _planned(trial: Trial, cfg: RunConfig, verb: str, names: list[str] | None) -> PlannedTrial:
    from hpc_llm.pipeline import check_start, choose, pipeline, unfinished, wanted

    folder = RunFolder(cfg.folder)
    ranks = cfg.launch.processes
    if cfg.launch.name == "slurm":
        ranks = cfg.cluster.nodes * ranks_per_node(cfg)
    try:
        stages = pipeline(cfg)
        chosen = choose(stages, names)
        due = unfinished(folder, chosen, verb)
        check_start(cfg, folder, stages, due, ranks)
    except UserError as error:
        raise of_trial(trial.values, error) from error
    own = {stage.name: stage.fingerprint for stage in wanted(chosen, verb)}
    return PlannedTrial(
        trial=replace(trial, stages=own),
        cfg=cfg,
        names=names,
        due=tuple(stage.name for stage in due),
    )


def of_trial(values: dict[str, str], error: UserError) -> UserError:
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

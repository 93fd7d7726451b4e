"""Runs of a table: one for each seed and each set of overrides, composed before any starts."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import yaml

from hpc_llm.app.trials import SHARED, ComposedTrial, PlannedTrial, of_trial
from hpc_llm.errors import UserError
from hpc_llm.settings import RunConfig
from hpc_llm.settings.options import near
from hpc_llm.settings.table import TableRow, TableSettings, load_table

__all__ = ["compose_table", "refuse_other_documents", "table_of", "with_trials"]

OF_TABLE = ("seed", "corpus.seed")  # set for each trial
FIX = "write a table of your own: conf/table/NAME.yaml"


def table_of(words: Sequence[str]) -> tuple[TableSettings, list[str]]:
    """Return the table of `table=NAME`, with `table.seeds=[...]`, and the other overrides."""
    own = {w.partition("=")[0]: w.partition("=")[2] for w in words if w.startswith("table")}
    for key in own.keys() - {"table", "table.seeds"}:
        raise UserError(key, None, "no such setting", near(key, ["table", "table.seeds"]))
    if "table" not in own:
        fix = "use table=NAME, or the folder of a table to write it again"
        raise UserError("table", None, "names no table", fix)
    table = load_table(own["table"])
    if "table.seeds" in own:
        table = replace(table, seeds=_seeds(own["table.seeds"]))
    return table, [word for word in words if not word.startswith("table")]


def _seeds(text: str) -> list[int]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    found = found if isinstance(found, list) else [found]
    if not all(type(one) is int and one >= 0 for one in found) or len(set(found)) < len(found):
        rule, fix = "must be different integers from 0", "for example table.seeds=[1,2,3]"
        raise UserError("table.seeds", text, rule, fix)
    return found


def compose_table(table: TableSettings, words: Sequence[str]) -> list[ComposedTrial]:
    """Return a trial for each seed and each different list of overrides, seed by seed.

    `words` are the overrides of the command line. Raises `UserError` for a row that cannot be
    composed, for a point that its recipe does not have, and for a setting that rows set too.
    """
    _refuse_conflicts(table, words)
    configs = {overrides: _config(table, words, overrides) for overrides in _sets(table)}
    composed = []
    for seed in table.seeds:
        for overrides, cfg in configs.items():
            rows = _rows_of(table, overrides)
            names = [
                name for name in _order(cfg) if any(name in _stages(cfg, table, r) for r in rows)
            ]
            composed.append(
                ComposedTrial(
                    values={"row": rows[0].label, "seed": str(seed)},
                    overrides=[*table.overrides, *words, *overrides],
                    cfg=replace(cfg, seed=seed),
                    names=names,
                )
            )
    return composed


def with_trials(table: TableSettings, planned: Sequence[PlannedTrial]) -> dict[str, Any]:
    """Return the table as written to its folder: its rows with the numbers of their trials.

    `stages` of a row are those that lead to its point and that it pays for.
    """
    by_values = {tuple(one.trial.values.values()): one for one in planned}
    rows = []
    for row in table.rows:
        first = _rows_of(table, tuple(row.overrides))[0].label
        own = [by_values[first, str(seed)] for seed in table.seeds]
        needed = _leading_to(own[0].cfg, row.point)
        early = table.early_point if row.point != "base" else None
        rows.append(
            asdict(row)
            | {"against": table.reference(row), "early_point": early}
            | {"trials": [one.trial.number for one in own]}
            | {"stages": [name for name in needed if name.startswith(_paid_for(row))]}
        )
    return asdict(table) | {"rows": rows}


def _paid_for(row: TableRow) -> tuple[str, ...]:
    """Return what the names of the stages start with whose costs a row has: no evaluations."""
    parts = () if row.point == "base" else ("corpus", "tokenizer", "transplant", "correct")
    return ("train/", *parts)


def refuse_other_documents(planned: Sequence[PlannedTrial]) -> None:
    """Raise `UserError` for a trial that is evaluated on other documents than the first."""
    first, *others = planned
    for one in others:
        for key, same in (
            ("corpus", one.trial.stages["corpus"] == first.trial.stages["corpus"]),
            ("evaluation.test_bytes", _test_bytes(one) == _test_bytes(first)),
        ):
            if not same:
                rule = f"its held-out documents are not those of row={first.trial.values['row']}"
                fix = f"set {key} for all rows"
                raise of_trial(one.trial.values, UserError(key, None, rule, fix))


def _test_bytes(one: PlannedTrial) -> int:
    return one.cfg.evaluation.test_bytes


def _sets(table: TableSettings) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(tuple(row.overrides) for row in table.rows))


def _rows_of(table: TableSettings, overrides: tuple[str, ...]) -> list[TableRow]:
    return [row for row in table.rows if tuple(row.overrides) == overrides]


def _refuse_conflicts(table: TableSettings, words: Sequence[str]) -> None:
    """Raise `UserError` for settings that only the table may set, and that no row may."""
    from hpc_llm.config import override_key

    given = [override_key(word) for word in words]
    for key in given:
        if key in OF_TABLE:
            raise UserError(key, None, "a table sets it for each run", "use table.seeds=[1,2,3]")
    for row in table.rows:
        for key in map(override_key, row.overrides):
            place = f"table.{table.name}.rows[{row.label}].overrides"
            if key in (*SHARED, *OF_TABLE):
                raise UserError(place, key, "must be equal for all rows", "set it for all")
            if key in given:
                rule = f"row {row.label} of table={table.name} sets it"
                raise UserError(key, None, rule, FIX)


def _config(table: TableSettings, words: Sequence[str], overrides: Sequence[str]) -> RunConfig:
    """Return the configuration of the rows with these overrides, for the first seed."""
    from hpc_llm import config

    given = {config.override_key(word) for word in words}
    common = [word for word in table.overrides if config.override_key(word) not in given]
    rows = _rows_of(table, tuple(overrides))
    try:
        every = [*common, *words, *overrides]
        cfg = config.typed(config.compose(every))
        config.refuse_laptop_defaults(every, cfg, os.environ)
    except UserError as error:
        raise of_trial({"row": rows[0].label}, error) from error
    points = sorted({point for row in rows for point in _points(cfg, table, row)})
    seed = table.seeds[0] if cfg.corpus.seed is None else cfg.corpus.seed
    return replace(
        cfg,
        run=cfg.run or table.name,
        corpus=replace(cfg.corpus, seed=seed),
        evaluation=replace(cfg.evaluation, task_points=points if cfg.evaluation.tasks else []),
    )


def _points(cfg: RunConfig, table: TableSettings, row: TableRow) -> list[str]:
    """Return the points at which a row is measured. Raises `UserError` for one without a stage."""
    wanted = {"point": row.point}
    if table.early_point and row.point != "base":
        wanted["early_point"] = table.early_point
    known = [name.partition("/")[2] for name in _order(cfg) if name.startswith("evaluate/")]
    for key, point in wanted.items():
        if point not in known:
            place = f"table.{table.name}.rows[{row.label}].{key}"
            raise UserError(place, point, "no such point of its recipe", near(point, known))
    return [*wanted.values()]


def _stages(cfg: RunConfig, table: TableSettings, row: TableRow) -> set[str]:
    """Return the stages that a row needs, evaluations included."""
    return {name for point in _points(cfg, table, row) for name in _leading_to(cfg, point)}


def _order(cfg: RunConfig) -> list[str]:
    from hpc_llm.pipeline.table import stage_names

    return stage_names(cfg)


def _leading_to(cfg: RunConfig, point: str) -> list[str]:
    """Return the stages that lead to the evaluation of a point, in order, itself last."""
    from hpc_llm.pipeline.table import outline

    entries = {entry.name: entry for entry in outline(cfg)}
    found, left = {f"evaluate/{point}"}, [f"evaluate/{point}"]
    while left:
        new = set(entries[left.pop()].needs) - found
        found |= new
        left += new
    return [name for name in entries if name in found]

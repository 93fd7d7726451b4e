"""`hpc-llm verify RUN_FOLDER ...`: check the files of finished runs before they are published."""

from pathlib import Path

import yaml

from hpc_llm.app.arguments import Arguments
from hpc_llm.errors import EXIT_FAILED, UserError
from hpc_llm.report import journal_problems
from hpc_llm.rundir import RunFolder, SweepFolder, find_damage

__all__ = ["run_verify"]


def run_verify(arguments: Arguments) -> int:
    """Print each damaged or missing file of the runs named; return 1 if there is one, else 0."""
    if not arguments.overrides:
        fix = "pass some, for example hpc-llm verify runs/*"
        raise UserError("verify", None, "no run folder", fix)
    folders = [folder for word in arguments.overrides for folder in _run_folders(word)]
    return EXIT_FAILED if sum(map(_verify, folders)) else 0


def _run_folders(word: str) -> list[RunFolder]:
    """Return the run folder at a path, or those of all trials of a sweep."""
    sweep, folder = SweepFolder(Path(word)), RunFolder(Path(word))
    if sweep.exists():
        trials = [sweep.trial(trial.number) for trial in sweep.read().trials]
        return [trial for trial in trials if trial.path.exists()]
    if not folder.config.exists() and not folder.record.exists():
        rule = "is not a run folder: it has no config.yaml"
        raise UserError(word, None, rule, "see ls runs")
    return [folder]


def _verify(folder: RunFolder) -> int:
    """Print the problems of one run and what was verified; return the number of problems."""
    problems, remarks = _stage_problems(folder)
    files = 0
    unhashed = []
    for stage, record in folder.records().items():
        known = record.get("files", {})
        files += len(known)
        damage = find_damage(folder.path, known)
        problems += [f"{folder.path / one.file}: {one.problem}" for one in damage]
        if "files" not in record:
            unhashed.append(stage)
    if unhashed:
        names = ", ".join(unhashed)
        remarks.append(f"recorded without hashes by an earlier version, not verified: {names}")
    problems += journal_problems(folder)
    for problem in problems:
        print(problem)
    for remark in remarks:
        print(f"{folder.path}: {remark}")
    count = {0: "no problem", 1: "1 problem"}.get(len(problems), f"{len(problems)} problems")
    print(f"{folder.path}: {files} files verified, {count}")
    return len(problems)


def _stage_problems(folder: RunFolder) -> tuple[list[str], list[str]]:
    """Return problems and remarks about stages without a record, by the run's configuration."""
    from hpc_llm import config
    from hpc_llm.pipeline.table import outline

    try:
        entries = outline(config.load(folder.config))
    except UserError as error:
        if not _is_mapping(folder.config):
            return [f"{folder.config}: is missing or cannot be read"], []
        return [], [f"config.yaml is of another version of hpc-llm ({error})"]
    records = folder.records()
    missing = [entry for entry in entries if entry.name not in records]
    remarks = [f"not finished: {', '.join(entry.name for entry in missing)}"] if missing else []
    problems = [
        f"{folder.record}: has no record of {entry.name}, whose files exist"
        for entry in missing
        if all((folder.path / output).exists() for output in entry.outputs)
    ]
    if not records:
        problems.append(f"{folder.record}: has no finished stage")
    return problems, remarks


def _is_mapping(path: Path) -> bool:
    """Return whether a YAML file can be read and has settings, of whatever version."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(found, dict) and bool(found)

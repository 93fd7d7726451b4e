"""The run folder `runs/<run>/`: the single record of a run's settings and results."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_llm.rundir.atomic import append_line, read_jsonl

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """Paths in a run folder, and the record of finished stages."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def job_script(self) -> Path:
        """The submitted script of a single job."""
        return self.path / "job.sbatch"

    def chain_script(self, number: int, part: str) -> Path:
        """Return the path of the submitted script of one job of a chain."""
        return self.path / "jobs" / f"{number}-{part}.sbatch"

    @property
    def jobs(self) -> Path:
        """One line per submitted job."""
        return self.path / "jobs.jsonl"

    @property
    def record(self) -> Path:
        """One line per finished stage."""
        return self.path / "record.jsonl"

    @property
    def starts(self) -> Path:
        """One line per start of the run, stop request and end."""
        return self.path / "starts.jsonl"

    @property
    def events(self) -> Path:
        """Every metric with its axes."""
        return self.path / "events.jsonl"

    @property
    def ledger(self) -> Path:
        """Costs: one line per interval charged."""
        return self.path / "ledger.jsonl"

    @property
    def summary(self) -> Path:
        """Metrics of the run in one JSON object."""
        return self.path / "summary.json"

    @property
    def model(self) -> Path:
        """The adapted model, loadable with transformers."""
        return self.path / "model"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report" / "index.html"

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the newest record of each finished stage by its name, in the order of the recipe.

        A stage that ran again keeps its position; damaged lines are skipped.
        """
        found: dict[str, dict[str, Any]] = {}
        for entry in read_jsonl(self.record):
            if "void" in entry:
                found.pop(entry["void"], None)
            elif "stage" in entry and "fingerprint" in entry:
                found[entry["stage"]] = entry
        return found

    def finished(self, stage: str) -> dict[str, Any] | None:
        """Return the newest record of `stage`, or None."""
        return self.records().get(stage)

    def done(self, stages: Mapping[str, str]) -> list[str]:
        """Return those of `stages` (name -> fingerprint) whose newest record matches."""
        newest = {name: entry["fingerprint"] for name, entry in self.records().items()}
        return [name for name, fingerprint in stages.items() if newest.get(name) == fingerprint]

    def write_record(self, entry: dict[str, Any]) -> None:
        """Append the record of a finished stage."""
        append_line(self.record, entry)

    def void_record(self, stage: str, why: str) -> None:
        """Make `stage` unfinished: its record no longer counts."""
        append_line(self.record, {"void": stage, "why": why})

    def supersede(self, name: str) -> Path | None:
        """Move `name`, an earlier result, to superseded/; return its new path, or None."""
        folder = self.path / name
        if not folder.exists():
            return None
        number = 1
        while (target := self.path / "superseded" / f"{name.replace('/', '-')}.{number}").exists():
            number += 1
        target.parent.mkdir(exist_ok=True)
        shutil.move(folder, target)
        return target

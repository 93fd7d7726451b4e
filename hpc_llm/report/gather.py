"""The content of a run folder: summary, records, events, the curve of phi, the configuration.

Every part may be missing (an interrupted run, a single verb): it is then empty here and the page
has no such section.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from hpc_llm.report.measures import Measures, summary_measures
from hpc_llm.rundir import RunFolder, check_yaml, read_json
from hpc_llm.tracking import read_events

__all__ = ["RunData", "gather", "training"]


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The parts of one run folder, as plain JSON values."""

    name: str
    """The run."""
    summary: dict[str, Any]
    """`summary.json`: the results of the run."""
    measures: Measures
    """Its measures, by name and point."""
    records: dict[str, dict[str, Any]]
    """The latest record of each finished stage, in the order of the recipe."""
    events: list[dict[str, Any]]
    """The surviving history of `events.jsonl`."""
    correction: dict[str, Any]
    """`correct/phi.json`: the curve of the merging factor."""
    config: dict[str, Any]
    """The resolved configuration."""
    config_text: str
    """The text of `config.yaml`."""

    def result(self, stage: str) -> dict[str, Any]:
        """Return the result of a finished stage, or {}."""
        result: dict[str, Any] = self.records[stage]["result"] if stage in self.records else {}
        return result or {}


def gather(folder: RunFolder) -> RunData:
    """Read what exists in `folder`."""
    curve = folder.path / "correct" / "phi.json"
    summary = read_json(folder.summary) if folder.summary.exists() else {}
    check_yaml(folder.config)
    text = folder.config.read_text(encoding="utf-8") if folder.config.exists() else ""
    return RunData(
        name=summary.get("run") or folder.path.name,
        summary=summary,
        measures=summary_measures(summary),
        records=folder.records(),
        events=read_events(folder.events),
        correction=read_json(curve) if curve.exists() else {},
        config=yaml.safe_load(text) or {},
        config_text=text,
    )


def training(data: RunData) -> dict[str, dict[str, Any]]:
    """Return the results of the training stages, by the names of their records."""
    return {stage: data.result(stage) for stage in data.records if "steps" in data.result(stage)}

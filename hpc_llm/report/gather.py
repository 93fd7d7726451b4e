"""What a run folder tells: summary, records, events, the curve of phi and the configuration.

Every part may be missing (a run that stopped half-way, a single verb): then it is empty here and
its section is left out of the page.
"""

from dataclasses import dataclass
from typing import Any

import yaml

from hpc_llm.rundir import RunFolder, read_json, read_jsonl
from hpc_llm.tracking import read_events

__all__ = ["RunData", "bpb_stages", "gather", "training"]


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The parts of one run folder, as plain JSON values."""

    name: str
    """The run."""
    summary: dict[str, Any]
    """`summary.json`: the figures of the run."""
    records: dict[str, dict[str, Any]]
    """The newest record of each finished stage, in the order of the recipe."""
    events: list[dict[str, Any]]
    """The surviving history of `events.jsonl`."""
    correction: dict[str, Any]
    """`correct/phi.json`: the curve of the merging factor."""
    config: dict[str, Any]
    """The resolved configuration."""
    config_text: str
    """The same as it stands in `config.yaml`."""

    def result(self, stage: str) -> dict[str, Any]:
        """Return the result of a finished stage, or {}."""
        result: dict[str, Any] = self.records.get(stage, {}).get("result") or {}
        return result


def gather(folder: RunFolder) -> RunData:
    """Read what there is in `folder`."""
    records: dict[str, dict[str, Any]] = {}
    for entry in read_jsonl(folder.record):
        if "stage" in entry:
            records[entry["stage"]] = entry  # a stage done again keeps its place in the order
    curve = folder.path / "correct" / "phi.json"
    summary = read_json(folder.summary) if folder.summary.exists() else {}
    text = folder.config.read_text(encoding="utf-8") if folder.config.exists() else ""
    return RunData(
        name=summary.get("run") or folder.path.name,
        summary=summary,
        records=records,
        events=read_events(folder.events),
        correction=read_json(curve) if curve.exists() else {},
        config=yaml.safe_load(text) or {},
        config_text=text,
    )


def bpb_stages(summary: dict[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """Return (target, source) bits per byte of each stage, in the order of the recipe."""
    target, source = summary.get("target_bpb") or {}, summary.get("source_bpb") or {}
    return {stage: (target.get(stage), source.get(stage)) for stage in {**target, **source}}


def training(data: RunData) -> dict[str, dict[str, Any]]:
    """Return the results of the stages that train, by the names of their records."""
    return {stage: data.result(stage) for stage in data.records if "steps" in data.result(stage)}

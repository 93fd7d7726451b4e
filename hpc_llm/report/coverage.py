"""Whether the ledger and the events of a run cover its finished stages.

Both files are append-only and have no record of their own. But each stage records its FLOPs, its
last step and the start that made it, so that a file that was lost, cut or replaced is noticed.
"""

from typing import Any

from hpc_llm.accounting import Ledger
from hpc_llm.rundir import RunFolder, damaged_lines, read_starts, start_number
from hpc_llm.tracking import read_events

__all__ = ["journal_problems", "uncharged_stages"]


def uncharged_stages(folder: RunFolder, without: str = "") -> list[str]:
    """Return the finished stages whose costs are not all in `ledger.jsonl`, except `without`.

    Stages linked from the shared cache have no costs here; those recorded by an earlier version
    must have any row.
    """
    ledger = Ledger(folder.ledger)
    rows = ledger.rows()
    found = {key for row in rows for key in ((row.stage, row.segment), (row.stage, None))}
    missing = []
    for stage, record in folder.records().items():
        result = _result(record)
        if stage == without or result.get("linked"):
            continue
        charged = (stage, record.get("segment")) in found
        if charged and "steps" in result:
            useful = ledger.useful_until(stage, result["steps"])
            charged = useful.flops >= result["flops"]
        if not charged:
            missing.append(stage)
    return missing


def _unlogged_stages(folder: RunFolder) -> list[str]:
    """Return the finished training stages whose last step is not in `events.jsonl`."""
    last: dict[str, Any] = {}
    for line in read_events(folder.events):
        if line["event"] == "train" and line.get("steps"):
            last[f"train/{line['stage']}"] = line
    missing = []
    for stage, record in folder.records().items():
        result = _result(record)
        if result.get("linked") or "chain" not in result:
            continue
        line = last.get(stage, {"step": None, "steps": [[None] * 3], "metrics": {}})
        loss = line["metrics"].get("train/loss", result["loss"])  # none if all steps were skipped
        logged = (line["step"], line["steps"][-1][2], loss)
        if logged != (result["steps"], result["chain"], result["loss"]):
            missing.append(stage)
    return missing


def journal_problems(folder: RunFolder) -> list[str]:
    """Return what is wrong with the journals of a run, one line each, with the file's path."""
    problems = []
    for path in (folder.record, folder.ledger, folder.events, folder.starts):
        if count := damaged_lines(path):
            lines = "1 damaged line is" if count == 1 else f"{count} damaged lines are"
            problems.append(f"{path}: {lines} skipped")
    earlier = [one for one in read_starts(folder.starts) if one.number != start_number()]
    if folder.records() and not earlier:
        problems.append(f"{folder.starts}: has no start of the finished stages")
    if stages := uncharged_stages(folder):
        problems.append(f"{folder.ledger}: does not cover {', '.join(stages)}; costs are too low")
    if stages := _unlogged_stages(folder):
        problems.append(f"{folder.events}: lacks steps of {', '.join(stages)}; curves are cut")
    return problems


def _result(record: dict[str, Any]) -> dict[str, Any]:
    return record.get("result") or {}
